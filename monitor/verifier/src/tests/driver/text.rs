//! State as text, exactly as `tests/model/observe.py` writes it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Display;

use super::DriverSum;
use crate::crypto::Element;
use crate::key::Key;
use crate::thread::{EpochEnd, Progress};
use crate::time::Timestamp;
use crate::value::{Node, Value};

pub fn ts(ts: Timestamp) -> String {
    format!("{}.{}", ts.epoch, ts.counter)
}

pub fn key(key: &Key) -> String {
    let bit = |index: u16| key.bits()[usize::from(index / 8)] >> (7 - index % 8) & 1;
    let path: String = (0..key.depth())
        .map(|index| if bit(index) == 1 { '1' } else { '0' })
        .collect();
    if path.is_empty() { String::from("root") } else { path }
}

pub fn data(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return String::from("none");
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn value(value: &Value) -> String {
    let mut encoding = Vec::new();
    value.encode(&mut encoding);
    data(&encoding)
}

pub fn root(node: Option<&Node>) -> String {
    optional(node.map(|node| value(&Value::Node(*node))))
}

pub fn optional(of: Option<impl Display>) -> String {
    of.map_or_else(|| String::from("-"), |of| of.to_string())
}

pub fn element(element: &Element<'_>) -> String {
    let (key, value) = (key(element.key), value(element.value));
    format!("{} by {} {key} {value}", ts(element.ts), element.thread)
}

pub fn multiset(name: &str, sum: &DriverSum, lines: &mut Vec<String>) {
    let line = |(element, count): (&String, &u64)| format!("{name} {element} x{count}");
    lines.extend(sum.elements.iter().map(line));
}

pub fn end(end: &EpochEnd, lines: &mut Vec<String>) {
    lines.push(format!("end root {}", root(end.root.as_ref())));
    for (session, sequence) in &end.sessions {
        lines.push(format!("end session {session} {sequence}"));
    }
    lines.push(format!("end tag {}", optional(end.tag.map(|tag| data(&tag)))));
}

pub fn progress(progress: Progress) -> String {
    match progress {
        Progress::Done => String::from("done"),
        Progress::Waiting { consumed } => format!("waiting after {consumed}"),
        Progress::Failed(violation) => format!(
            "failed {} epoch {} offset {} key {}",
            violation.code.name(),
            violation.epoch,
            violation.offset,
            key(&violation.key)
        ),
    }
}
