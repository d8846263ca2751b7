//! A whole control connection: whatever a host sends, the monitor answers, refuses or fails, and the connection ends.

#![no_main]

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::thread;

use libfuzzer_sys::fuzz_target;
use zetakv_fuzz::{Input, scratch};
use zetakv_monitor::control;
use zetakv_monitor::error::Error;
use zetakv_monitor::monitor::Monitor;
use zetakv_monitor::register::file::FileRegister;
use zetakv_monitor::register::{Commitment, TrustedRegister};
use zetakv_monitor::sealed::genesis_hash;
use zetakv_monitor::state_dir::StateDirectory;
use zetakv_monitor::stream::Stream;
use zetakv_monitor::wire::kind;

static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(|| scratch().join("monitor"));

/// A register in memory.
struct Memory(Commitment);

impl TrustedRegister for Memory {
    fn read(&self) -> Result<Commitment, Error> {
        Ok(self.0)
    }

    fn initialize(&mut self, commitment: &Commitment) -> Result<(), Error> {
        self.0 = *commitment;
        Ok(())
    }

    fn commit(&mut self, expected: &Commitment, new: &Commitment) -> Result<(), Error> {
        assert_eq!(*expected, self.0, "nobody else commits");
        self.0 = *new;
        Ok(())
    }
}

/// The host's messages: a start that fits, usually, and then anything.
fn messages(input: &mut Input<'_>) -> Vec<u8> {
    let mut sent = Vec::new();
    let mut send = |kind: u8, body: &[u8]| {
        sent.extend_from_slice(&(body.len() as u32 + 1).to_le_bytes());
        sent.push(kind);
        sent.extend_from_slice(body);
    };
    let threads = u16::from(input.u8() % 5);
    let slots = u32::from(input.u8() % 8); // a host may ask for gigabytes, within the limit: not here
    let flags = input.u8() % 3;
    let start = [&threads.to_le_bytes()[..], &slots.to_le_bytes(), &[flags]].concat();
    let sealed = if flags & 2 == 0 { &[][..] } else { input.counted() };
    send(kind::START, &[&start, sealed].concat());
    while !input.is_empty() {
        let kinds = [
            kind::HELLO,
            kind::ADMIN,
            kind::DURABLE,
            kind::CLOSE_SESSION,
            kind::TICKET,
            kind::LIVE,
            input.u8(),
        ];
        let kind = kinds[input.below(kinds.len())];
        let count = usize::from(input.u8());
        send(kind, input.take(count));
    }
    sent
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let is_open = input.u8() % 2 == 0;
    let raw = input.u8() % 8 == 0;
    let sent = if raw {
        [&[14, 0, 0, 0, 16, 1, 0, 2, 0, 0, 0][..], input.0].concat()
    } else {
        messages(&mut input)
    };
    let state = StateDirectory::open(&DIRECTORY, Box::new(FileRegister::open)).expect("a state directory");
    let monitor = Monitor::new(state, is_open);
    let mut register = Memory(Commitment {
        sealed: genesis_hash(),
        ..Commitment::default()
    });
    let (mut host, served) = UnixStream::pair().expect("a pair of sockets");
    thread::scope(|scope| {
        scope.spawn(|| control::serve(&monitor, &mut register, &mut Stream::from(served)));
        let _ = host.write_all(&sent); // refused where the monitor has ended the connection
        let _ = host.shutdown(Shutdown::Write);
        let mut answers = Vec::new();
        let _ = host.read_to_end(&mut answers);
        assert!(
            answers.len() <= 4096 + 64 * sent.len(),
            "{} bytes of answers",
            answers.len()
        );
    });
});
