//! The walk over a whole store, for Python.

use std::collections::HashMap;

use zetakv_prover::Kind;

use super::*;

#[pyclass(module = "kvstore._prover")]
pub struct Audit(zetakv_prover::Audit);

/// Kind, store key, application keys, records below.
type FindingTuple<'py> = (&'static str, Bound<'py, PyBytes>, Vec<Bound<'py, PyBytes>>, u64);

#[pymethods]
impl Audit {
    #[new]
    #[pyo3(signature = (*, threads, root))]
    fn new(threads: u16, root: Option<&[u8]>) -> PyResult<Self> {
        zetakv_prover::Audit::new(threads, root)
            .map(Self)
            .map_err(|_| PyValueError::new_err("no store has this number of threads, or this root"))
    }

    fn begin(&mut self, py: Python<'_>, nodes: RangeRows, markers: Vec<PyBackedBytes>) {
        py.detach(|| self.0.begin(&nodes, &markers));
    }

    fn records(&mut self, py: Python<'_>, rows: RangeRows) {
        py.detach(|| self.0.records(&rows));
    }

    fn end<'py>(&mut self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let blum = py.detach(|| {
            self.0.end();
            self.0.take_blum()
        });
        PyBytes::new(py, &blum)
    }

    fn findings<'py>(&self, py: Python<'py>) -> Vec<FindingTuple<'py>> {
        let bytes = |bytes: &Vec<u8>| PyBytes::new(py, bytes);
        let findings = self.0.findings().iter();
        findings
            .map(|it| {
                let keys = it.keys.iter().map(bytes).collect();
                (name(it.kind), bytes(&it.store_key), keys, it.records_below)
            })
            .collect()
    }

    fn totals(&self) -> HashMap<&'static str, u64> {
        let totals = self.0.totals();
        HashMap::from([
            ("records", totals.records),
            ("nodes", totals.nodes),
            ("in_blum", totals.in_blum),
            ("unproved", totals.unproved),
            ("findings", totals.findings),
        ])
    }
}

const fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Changed => "changed",
        Kind::Missing => "missing",
        Kind::Garbled => "garbled",
        Kind::Extra => "extra",
        Kind::SubtreeChanged => "subtree_changed",
    }
}
