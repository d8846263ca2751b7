//! The verifier as the executable model (`tests/model`, Python) drives it: plays scripts, and tells all that can be seen after each step.
//!
//! This is a unit test, because these alone see the state of a thread, and can leave out checks; what is shipped has nothing of it. It is
//! ignored in other runs: the model starts it as a process of its own, at the other end of a socket.

mod crypto;
mod monitor;
pub(crate) mod text;

use std::boxed::Box;
use std::env;
use std::format;
use std::io::{BufRead, BufReader, Write};
use std::iter;
use std::os::unix::net::UnixStream;
use std::panic::catch_unwind;
use std::string::{String, ToString};
use std::vec::Vec;

pub use self::crypto::DriverSum;
use self::monitor::Monitor;
use super::left_out::without;
use super::world::{DEPTH, Machine};
use crate::key::LEAF_DEPTH;

/// Names the socket.
const SOCKET: &str = "ZETAKV_DRIVER_SOCKET";

/// Plays a script: the first line has the depth of the leaves and the checks to leave out; each other line is a step.
fn play(script: &[String]) -> String {
    let mut settings = script[0].split(' ');
    let depth = settings.next().and_then(|depth| depth.parse().ok());
    let checks: Vec<&'static str> = settings.map(|name| &*Box::leak(Box::<str>::from(name))).collect();
    without(&checks, || match depth {
        Some(DEPTH) => Monitor::<Machine, DEPTH>::default().follow(&script[1..]),
        Some(LEAF_DEPTH) => Monitor::<Machine, LEAF_DEPTH>::default().follow(&script[1..]),
        _ => panic!("no such depth: {depth:?}"),
    })
}

/// What a script comes to: for each step some lines, and one with a dot.
fn answer(script: &[String]) -> String {
    catch_unwind(|| play(script)).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().cloned();
        let message = message.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        format!("panicked: {}\n.\n", message.unwrap_or_default().replace('\n', " "))
    })
}

#[test]
#[ignore = "the executable model starts it"]
fn follow_scripts() {
    let socket = env::var(SOCKET).expect("the model names its socket");
    let mut stream = UnixStream::connect(socket).expect("the model listens");
    let mut lines = BufReader::new(stream.try_clone().expect("a second handle")).lines();
    let mut next_line = || lines.next().map(|line| line.expect("the model goes on until the end"));
    while let Some(count) = next_line() {
        // all is read before anything is answered, so that neither side waits for the other to read
        let scripts: Vec<Vec<String>> = (0..count.parse().expect("a number of scripts"))
            .map(|_| {
                iter::from_fn(&mut next_line)
                    .take_while(|line| !line.is_empty())
                    .collect()
            })
            .collect();
        for script in scripts {
            let answer = answer(&script) + "\n"; // an empty line ends scripts and answers
            stream.write_all(answer.as_bytes()).expect("the model reads the answer");
        }
    }
}
