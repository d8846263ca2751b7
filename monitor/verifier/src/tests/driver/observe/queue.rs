//! What waits, for the model.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Queue, Queued, QueuedRequest, QueuedResume};
use crate::tests::driver::text;

impl Queue {
    pub(crate) fn observe(&self, lines: &mut Vec<String>) {
        lines.extend(self.waiting.iter().map(|queued| match queued {
            Queued::Request(request) => request_line(request),
            Queued::Resume(resume) => resume_line(resume),
        }));
        lines.push(format!("operations {}", text::data(&self.operations[self.read..])));
    }
}

fn request_line(request: &QueuedRequest) -> String {
    format!(
        "request {} generation {} sequence {} after {} role {} mac {} key {} operations {} done {}",
        request.session,
        request.generation,
        request.sequence,
        text::ts(request.after_ts),
        request.role as u8,
        text::data(&request.mac),
        text::data(&*request.receipt_key),
        request.operations,
        request.done
    )
}

fn resume_line(resume: &QueuedResume) -> String {
    format!(
        "resume {} generation {} last {} nonce {} key {}",
        resume.session,
        resume.generation,
        resume.last_sequence,
        text::data(&resume.nonce),
        text::data(&*resume.receipt_key)
    )
}
