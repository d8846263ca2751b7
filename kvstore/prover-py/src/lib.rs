//! Python bindings of the prover: conversions, and nothing else. The interface is described in `kvstore/_prover.pyi`.

#![forbid(unsafe_code)]
#![allow(missing_docs)] // what Python sees is documented in the stub

use pyo3::create_exception;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use zetakv_prover::rows::{self, RecordRow};
use zetakv_prover::{Config, Error, FrameRules, RANGE_ROWS_MAX};

mod audit;
mod plain;
mod prover;

/// Keys and values of requests come and go by the million.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

create_exception!(kvstore._prover, FrameError, PyValueError);
create_exception!(kvstore._prover, ProverError, PyRuntimeError);

/// First and past-the-last store key.
type Range<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>);

/// Store keys and rows of a range.
type RangeRows = Vec<(PyBackedBytes, PyBackedBytes)>;

/// The Python exception of an error.
fn to_python(py: Python<'_>, error: Error) -> PyErr {
    match error {
        Error::Frame { code, text } => FrameError::new_err((code as u16, text)),
        Error::Store { text, key } => ProverError::new_err((text, PyBytes::new(py, &key).unbind())),
        Error::Monitor(text) | Error::Engine(text) => ProverError::new_err((text, None::<Py<PyBytes>>)),
    }
}

/// Do some work of an engine without the GIL.
fn work<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T, Error> + Send) -> PyResult<T> {
    py.detach(work).map_err(|error| to_python(py, error))
}

/// A batch of frames, keys or rows.
fn to_bytes<'py>(py: Python<'py>, list: &[Vec<u8>]) -> Vec<Bound<'py, PyBytes>> {
    list.iter().map(|bytes| PyBytes::new(py, bytes)).collect()
}

/// Frames for clients, with their origins.
fn to_frames<'py>(py: Python<'py>, frames: &[(u64, Vec<u8>)]) -> Vec<(u64, Bound<'py, PyBytes>)> {
    frames
        .iter()
        .map(|(origin, frame)| (*origin, PyBytes::new(py, frame)))
        .collect()
}

#[pyfunction]
#[pyo3(signature = (key, *, whole = false))]
fn store_key_of<'py>(py: Python<'py>, key: &[u8], whole: bool) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &rows::record_key(&rows::leaf_of(key), whole))
}

#[pyfunction]
fn decode_record<'py>(py: Python<'py>, row: &[u8]) -> PyResult<(Bound<'py, PyBytes>, Option<Bound<'py, PyBytes>>)> {
    let row = RecordRow::decode(row).map_err(|_| PyValueError::new_err("this is not the row of a record"))?;
    let value = row.value.map(|value| PyBytes::new(py, value));
    Ok((PyBytes::new(py, row.application_key), value))
}

#[pyfunction]
#[pyo3(signature = (key, value))]
fn encode_record<'py>(py: Python<'py>, key: &[u8], value: Option<&[u8]>) -> PyResult<Bound<'py, PyBytes>> {
    if key.len() > usize::from(u16::MAX) {
        return Err(PyValueError::new_err("a key has at most 65,535 bytes"));
    }
    let mut row = Vec::new();
    RecordRow::new(key, value).encode(&mut row);
    Ok(PyBytes::new(py, &row))
}

#[pyfunction]
fn rows_below<'py>(py: Python<'py>, bits: [u8; 32], depth: u16) -> PyResult<(Option<Bound<'py, PyBytes>>, Range<'py>)> {
    let (node, (first, end)) =
        rows::rows_below(bits, depth).ok_or_else(|| PyValueError::new_err("a depth is at most 256"))?;
    let node = node.map(|key| PyBytes::new(py, &key));
    Ok((node, (PyBytes::new(py, &first), PyBytes::new(py, &end))))
}

#[pymodule]
mod _prover {
    #[pymodule_export]
    use super::audit::Audit;
    #[pymodule_export]
    use super::plain::PlainEngine;
    #[pymodule_export]
    use super::prover::Prover;
    use super::*;
    #[pymodule_export]
    use super::{FrameError, ProverError, decode_record, encode_record, rows_below, store_key_of};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("RANGE_ROWS_MAX", RANGE_ROWS_MAX)
    }
}
