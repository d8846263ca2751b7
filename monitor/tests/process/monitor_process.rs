//! The real binary, on a Unix socket, with a state directory that outlives it for one test.

use std::cell::Cell;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ed25519_dalek::SigningKey;
use zetakv_monitor::identity::{from_hex, random, to_hex};

/// A directory for one test, removed afterwards.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        let name = to_hex(&random::<8>().expect("random bytes"));
        let path = std::env::temp_dir().join(format!("zetakv-monitor-{name}"));
        std::fs::create_dir(&path).expect("a directory");
        Self(path)
    }

    pub fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    pub fn socket(&self) -> PathBuf {
        self.0.join("socket")
    }

    pub fn admin_key(&self) -> SigningKey {
        let text = std::fs::read_to_string(self.state().join("admin.key")).expect("admin.key");
        let hex = text.trim_end().strip_prefix("zetakv-key-1 ").expect("its format");
        SigningKey::from_bytes(&from_hex(hex).expect("hex"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running monitor. It ends with the value, because its standard input does.
pub struct MonitorProcess {
    pub child: Child,
    pub fingerprint: [u8; 32],
    /// The line that it printed when it was ready.
    pub ready: String,
    /// The last incarnation that was started.
    pub incarnation: Cell<[u8; 16]>,
    socket: PathBuf,
}

impl MonitorProcess {
    pub fn start(scratch: &Scratch, options: &[&str]) -> Self {
        let socket = scratch.socket();
        Self::run(
            &scratch.state(),
            &["--socket", socket.to_str().expect("UTF-8")],
            options,
            &socket,
            Stdio::inherit(),
        )
    }

    /// One whose standard error is a pipe that nobody reads.
    pub fn start_unread(scratch: &Scratch) -> Self {
        let socket = scratch.socket();
        let address = ["--socket", socket.to_str().expect("UTF-8")];
        Self::run(&scratch.state(), &address, &[], &socket, Stdio::piped())
    }

    pub fn start_tcp(scratch: &Scratch) -> Self {
        let address = ["--listen", "127.0.0.1:0"];
        Self::run(&scratch.state(), &address, &[], Path::new(""), Stdio::inherit())
    }

    fn run(state: &Path, address: &[&str], options: &[&str], socket: &Path, stderr: Stdio) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_zetakv-monitor"))
            .arg("--state")
            .arg(state)
            .args(address)
            .arg("--exit-on-stdin-eof")
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("the binary runs");
        let mut ready = String::new();
        BufReader::new(child.stdout.take().expect("piped"))
            .read_line(&mut ready)
            .expect("a line");
        let json: serde_json::Value = serde_json::from_str(&ready).expect("one line of JSON");
        assert_eq!(json["ready"], true);
        let fingerprint = from_hex(json["fingerprint"].as_str().expect("a string")).expect("hex");
        Self {
            child,
            fingerprint,
            ready,
            incarnation: Cell::default(),
            socket: socket.to_owned(),
        }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for MonitorProcess {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let status = self.child.wait().expect("it ends with its input");
        assert!(
            std::thread::panicking() || status.success(),
            "the monitor ended with {status}"
        );
    }
}
