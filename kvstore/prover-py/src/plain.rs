//! The unverified baseline, for Python.

use std::collections::HashMap;

use super::*;

#[pyclass(module = "kvstore._prover")]
pub struct PlainEngine(zetakv_prover::PlainEngine);

#[pymethods]
impl PlainEngine {
    #[new]
    #[pyo3(signature = (*, thread, threads, epoch, key_bytes_max, value_bytes_max, response_bytes_max))]
    fn new(
        thread: u16,
        threads: u16,
        epoch: u32,
        key_bytes_max: usize,
        value_bytes_max: usize,
        response_bytes_max: usize,
    ) -> Self {
        let rules = FrameRules {
            thread,
            threads,
            key_bytes_max,
            value_bytes_max,
            response_bytes_max,
        };
        Self(zetakv_prover::PlainEngine::new(rules, epoch))
    }

    fn submit(&mut self, py: Python<'_>, origin: u64, body: PyBackedBytes) -> PyResult<()> {
        work(py, || self.0.submit(origin, &body))
    }

    #[allow(unused_variables)] // the interface of both engines is the same
    fn submit_resume(&mut self, py: Python<'_>, origin: u64, body: PyBackedBytes) -> PyResult<()> {
        work(py, || self.0.submit_resume())
    }

    fn reads<'py>(&mut self, py: Python<'py>) -> PyResult<(Vec<Bound<'py, PyBytes>>, Vec<Range<'py>>)> {
        Ok((to_bytes(py, &work(py, || Ok(self.0.reads()))?), Vec::new()))
    }

    #[allow(unused_variables)] // the interface of both engines is the same
    fn supply(&mut self, py: Python<'_>, rows: Vec<Option<PyBackedBytes>>, ranges: Vec<RangeRows>) -> PyResult<()> {
        work(py, || self.0.supply(&rows))
    }

    fn log<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, b"")
    }

    #[allow(unused_variables)] // the interface of both engines is the same
    fn absorb<'py>(&mut self, py: Python<'py>, outputs: PyBackedBytes) -> PyResult<Vec<(u64, Bound<'py, PyBytes>)>> {
        Ok(to_frames(py, &work(py, || self.0.absorb())?))
    }

    #[pyo3(signature = (*, all_to_merkle))]
    #[allow(unused_variables)] // the interface of both engines is the same
    fn start_cut(&mut self, all_to_merkle: bool) {
        self.0.start_cut();
    }

    fn handed_over(&mut self) -> Option<u32> {
        self.0.handed_over()
    }

    fn take_checkpoint<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &work(py, || self.0.take_checkpoint())?))
    }

    fn release_checkpoint(&mut self, py: Python<'_>, epoch: u32) -> PyResult<()> {
        work(py, || self.0.release_checkpoint(epoch))
    }

    #[getter]
    fn full(&self) -> bool {
        false
    }

    #[getter]
    fn busy(&self) -> bool {
        self.0.is_busy()
    }

    #[getter]
    fn active(&self) -> bool {
        self.0.is_active()
    }

    #[getter]
    fn cut_wanted(&self) -> bool {
        false
    }

    #[getter]
    fn cut_overdue(&self) -> bool {
        false
    }

    #[getter]
    fn changed_bytes(&self) -> usize {
        self.0.changed_bytes()
    }

    #[getter]
    fn dirty_bytes(&self) -> usize {
        self.0.dirty_bytes()
    }

    fn stats(&self) -> HashMap<&'static str, u64> {
        let (records, changed, operations) = self.0.stats();
        HashMap::from([
            ("cached", 0),
            ("hot", records as u64),
            ("dirty_records", changed as u64),
            ("operations", operations),
            ("log_bytes", 0),
            ("merkle_adds", 0),
            ("blum_adds", 0),
        ])
    }
}
