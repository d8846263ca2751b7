//! The prover, for Python.

use std::collections::HashMap;

use super::*;

#[pyclass(module = "kvstore._prover")]
pub struct Prover(zetakv_prover::Prover);

#[pymethods]
impl Prover {
    #[new]
    #[pyo3(signature = (*, thread, threads, previous_threads, epoch, fresh, slots, hot_records_max, hot_bytes_max, kept_value_bytes_max, warm_bytes_max, read_bytes_max, key_bytes_max, value_bytes_max, response_bytes_max, log_incarnation=None))]
    #[allow(clippy::too_many_arguments)] // keyword arguments of Python
    fn new(
        py: Python<'_>,
        thread: u16,
        threads: u16,
        previous_threads: u16,
        epoch: u32,
        fresh: bool,
        slots: u32,
        hot_records_max: usize,
        hot_bytes_max: usize,
        kept_value_bytes_max: usize,
        warm_bytes_max: usize,
        read_bytes_max: usize,
        key_bytes_max: usize,
        value_bytes_max: usize,
        response_bytes_max: usize,
        log_incarnation: Option<[u8; 16]>,
    ) -> PyResult<Self> {
        let config = Config {
            rules: FrameRules {
                thread,
                threads,
                key_bytes_max,
                value_bytes_max,
                response_bytes_max,
            },
            previous_threads,
            epoch,
            fresh,
            slots,
            hot_records_max,
            hot_bytes_max,
            kept_value_bytes_max,
            warm_bytes_max,
            read_bytes_max,
            log_incarnation,
        };
        work(py, || zetakv_prover::Prover::new(config)).map(Self)
    }

    fn hot_range<'py>(&self, py: Python<'py>) -> (Bound<'py, PyBytes>, Bound<'py, PyBytes>) {
        let (first, end) = self.0.hot_range();
        (PyBytes::new(py, &first), PyBytes::new(py, &end))
    }

    fn load_hot(&mut self, py: Python<'_>, rows: Vec<(PyBackedBytes, PyBackedBytes)>) -> PyResult<()> {
        work(py, || self.0.load_hot(rows.iter().map(|(key, _)| key)))
    }

    fn submit(&mut self, py: Python<'_>, origin: u64, body: PyBackedBytes) -> PyResult<()> {
        work(py, || self.0.submit(origin, &body))
    }

    fn submit_resume(&mut self, py: Python<'_>, origin: u64, body: PyBackedBytes) -> PyResult<()> {
        work(py, || self.0.submit_resume(origin, &body))
    }

    fn replay(&mut self, py: Python<'_>, record: PyBackedBytes) -> PyResult<()> {
        work(py, || self.0.replay(&record))
    }

    fn end_replay(&mut self, py: Python<'_>) -> PyResult<()> {
        work(py, || self.0.end_replay())
    }

    #[getter]
    fn replaying(&self) -> bool {
        self.0.is_replaying()
    }

    fn take_record<'py>(&mut self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.take_record())
    }

    fn reads<'py>(&mut self, py: Python<'py>) -> PyResult<(Vec<Bound<'py, PyBytes>>, Vec<Range<'py>>)> {
        let reads = work(py, || self.0.reads())?;
        let ranges = reads.ranges.iter();
        let ranges = ranges.map(|(first, end)| (PyBytes::new(py, first), PyBytes::new(py, end)));
        Ok((to_bytes(py, &reads.keys), ranges.collect()))
    }

    fn supply(&mut self, py: Python<'_>, rows: Vec<Option<PyBackedBytes>>, ranges: Vec<RangeRows>) -> PyResult<()> {
        work(py, || self.0.supply(&rows, &ranges))
    }

    fn log<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &work(py, || self.0.log())?))
    }

    fn absorb<'py>(&mut self, py: Python<'py>, outputs: PyBackedBytes) -> PyResult<Vec<(u64, Bound<'py, PyBytes>)>> {
        Ok(to_frames(py, &work(py, || self.0.absorb(&outputs))?))
    }

    #[pyo3(signature = (*, all_to_merkle))]
    fn start_cut(&mut self, py: Python<'_>, all_to_merkle: bool) -> PyResult<()> {
        work(py, || self.0.start_cut(all_to_merkle))
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
    fn epoch(&self) -> u32 {
        self.0.epoch()
    }

    #[getter]
    fn full(&self) -> bool {
        self.0.is_full()
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
        self.0.is_cut_wanted()
    }

    #[getter]
    fn cut_overdue(&self) -> bool {
        self.0.is_cut_overdue()
    }

    #[getter]
    fn changed_bytes(&self) -> usize {
        self.0.changed_bytes()
    }

    #[getter]
    fn dirty_bytes(&self) -> usize {
        self.0.dirty_bytes()
    }

    fn suspects<'py>(&self, py: Python<'py>) -> Vec<(Bound<'py, PyBytes>, Option<Bound<'py, PyBytes>>)> {
        let suspects = self.0.suspects().iter();
        let named = suspects.map(|suspect| {
            let key = suspect.application_key.as_ref();
            (
                PyBytes::new(py, &suspect.store_key),
                key.map(|key| PyBytes::new(py, key)),
            )
        });
        named.collect()
    }

    fn stats(&self) -> HashMap<&'static str, u64> {
        let stats = self.0.stats();
        HashMap::from([
            ("cached", stats.cached as u64),
            ("hot", stats.hot as u64),
            ("dirty_records", stats.dirty_records as u64),
            ("operations", stats.counters.operations),
            ("log_bytes", stats.counters.log_bytes),
            ("merkle_adds", stats.counters.merkle_adds),
            ("blum_adds", stats.counters.blum_adds),
        ])
    }
}
