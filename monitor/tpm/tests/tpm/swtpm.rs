//! A software TPM for one test, tpm2-tools to play its owner with, and transports that crash or lie.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use zetakv_monitor::identity::{Secret, random, to_hex};
use zetakv_monitor_tpm::error::Error;
use zetakv_monitor_tpm::register::{Connect, TpmRegister};
use zetakv_monitor_tpm::stream::{TpmAddress, Transport};

pub const INDEX: u32 = 0x0180_0100;
/// A command without sessions: TPM2_GetRandom of 8 bytes (TPM 2.0 library, part 3, 16.1).
const GET_RANDOM: [u8; 12] = [0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x7b, 0, 8];

/// A running TPM with a directory; both end with the value.
pub struct SoftwareTpm {
    process: Child,
    port: u16,
    pub directory: PathBuf,
}

impl SoftwareTpm {
    /// `None`, and a line that says so, where the programs are not installed.
    pub fn start() -> Option<Self> {
        let installed = |program| {
            let found = Command::new(program)
                .arg("--version")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            found.is_ok()
        };
        if !installed("swtpm") || !installed("tpm2_nvread") {
            eprintln!("SKIPPED: needs the Debian packages swtpm and tpm2-tools");
            return None;
        }
        let name = to_hex(&random::<8>().expect("random bytes"));
        let directory = std::env::temp_dir().join(format!("zetakv-tpm-{name}"));
        std::fs::create_dir(&directory).expect("a directory");
        let port = two_free_ports();
        let process = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .arg("--tpmstate")
            .arg(format!("dir={}", directory.display()))
            .arg("--server")
            .arg(format!("type=tcp,port={port},bindaddr=127.0.0.1"))
            .arg("--ctrl")
            .arg(format!("type=tcp,port={},bindaddr=127.0.0.1", port + 1))
            .stdin(Stdio::null())
            .spawn()
            .expect("it runs");
        let tpm = Self {
            process,
            port,
            directory,
        };
        // a command, not only a connection: one that comes and goes while swtpm begins can take the next with it
        for _ in 0..500 {
            if tpm.connect()().is_ok_and(|mut transport| transport.exchange(&GET_RANDOM).is_ok()) {
                return Some(tpm);
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("swtpm does not answer");
    }

    pub fn connect(&self) -> Connect {
        let address = TpmAddress::Tcp(format!("127.0.0.1:{}", self.port));
        Box::new(move || address.connect())
    }

    /// A register in it, with this key, and its file under this name.
    pub fn register(&self, key: u8, file: &str) -> TpmRegister {
        self.register_through(self.connect(), key, file)
    }

    pub fn register_through(&self, connect: Connect, key: u8, file: &str) -> TpmRegister {
        TpmRegister {
            connect,
            index: INDEX,
            auth: Secret::new([key; 32]),
            path: self.directory.join(file),
        }
    }

    /// Run one of tpm2-tools, as the TPM's owner; what it printed.
    pub fn tool(&self, tool: &str, arguments: &[&str]) -> Vec<u8> {
        let output = Command::new(tool)
            .args(arguments)
            .arg("--tcti")
            .arg(format!("swtpm:host=127.0.0.1,port={}", self.port))
            .output()
            .expect("it runs");
        assert!(
            output.status.success(),
            "{tool}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    }

    /// What the index holds, as the owner sees it.
    pub fn digest(&self) -> Vec<u8> {
        self.tool("tpm2_nvread", &["-C", "o", &format!("{INDEX:#x}")])
    }
}

impl Drop for SoftwareTpm {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// The first of two ports, one after the other, that are free and that no other test of this process is given.
///
/// They lie below those that systems hand out by themselves (Linux: from 32768), so that nobody gets one by chance
/// between this look and the start of the TPM: another test's TPM would answer in its place.
fn two_free_ports() -> u16 {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 20_000;
    const PAIRS: u16 = 6_000;
    let start = std::process::id() as u16 % PAIRS;
    let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    (0..PAIRS)
        .map(|_| FIRST + 2 * ((start + GIVEN.fetch_add(1, Ordering::Relaxed)) % PAIRS))
        .find(|&port| free(port) && free(port + 1))
        .expect("two free ports")
}

/// What happens to the commands of a register, counted over all its connections.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The process ends before the command of this number.
    CrashBefore(usize),
    /// The process ends after it, and does not see its response.
    CrashAfter(usize),
    /// Somebody changes this byte of its response.
    ChangeResponse(usize, usize),
    /// Somebody changes this byte of the command.
    ChangeCommand(usize, usize),
}

/// A way to the TPM with a fault in it.
pub fn faulty(connect: Connect, fault: Fault) -> Connect {
    let count = Arc::new(AtomicUsize::new(0));
    Box::new(move || {
        let transport: Box<dyn Transport> = Box::new(Faulty {
            inner: connect()?,
            fault,
            count: Arc::clone(&count),
        });
        Ok(transport)
    })
}

/// A way to the TPM, which is used by somebody else before the command of this number, counted from 0.
pub fn interrupted(connect: Connect, at: usize, interruption: impl FnMut() + Send + 'static) -> Connect {
    let shared = Arc::new(Mutex::new((connect, 0, interruption)));
    Box::new(move || {
        let shared = Arc::clone(&shared);
        let exchange = move |command: &[u8]| {
            let (connect, number, interruption) = &mut *shared.lock().expect("ours");
            if *number == at {
                interruption();
            }
            *number += 1;
            connect()?.exchange(command) // a connection for each command, since swtpm serves one at a time
        };
        let transport: Box<dyn Transport> = Box::new(Through(exchange));
        Ok(transport)
    })
}

struct Through<F>(F);

impl<F: FnMut(&[u8]) -> Result<Vec<u8>, Error>> Transport for Through<F> {
    fn exchange(&mut self, command: &[u8]) -> Result<Vec<u8>, Error> {
        (self.0)(command)
    }
}

struct Faulty {
    inner: Box<dyn Transport>,
    fault: Fault,
    count: Arc<AtomicUsize>,
}

impl Transport for Faulty {
    fn exchange(&mut self, command: &[u8]) -> Result<Vec<u8>, Error> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let crashed = || Err(Error::Connection(std::io::ErrorKind::BrokenPipe.into()));
        match self.fault {
            Fault::CrashBefore(at) if number >= at => crashed(),
            Fault::CrashAfter(at) if number > at => crashed(),
            Fault::CrashAfter(at) if number == at => {
                self.inner.exchange(command)?;
                crashed()
            }
            Fault::ChangeResponse(at, byte) if number == at => {
                let mut response = self.inner.exchange(command)?;
                if let Some(changed) = response.get_mut(byte) {
                    *changed ^= 1;
                }
                Ok(response)
            }
            Fault::ChangeCommand(at, byte) if number == at => {
                let mut command = command.to_vec();
                if let Some(changed) = command.get_mut(byte) {
                    *changed ^= 1;
                }
                self.inner.exchange(&command)
            }
            _ => self.inner.exchange(command),
        }
    }
}
