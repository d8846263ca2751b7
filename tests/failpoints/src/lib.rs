//! What the monitor's failpoints do in crash tests: the counterpart of `kvstore/failpoints.py`, which describes the directory that
//! `$ZETAKV_FAILPOINTS` names, and the plan in it. The trusted process has this only in builds with its feature `failpoints`.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex, PoisonError};

struct Plan {
    text: String,
    hits: u64,
}

static DIRECTORY: LazyLock<Option<PathBuf>> =
    LazyLock::new(|| std::env::var_os("ZETAKV_FAILPOINTS").map(PathBuf::from));
static PLAN: Mutex<Plan> = Mutex::new(Plan {
    text: String::new(),
    hits: 0,
});

/// Come to a point. Returns the error that is planned for it, or not at all.
pub fn hit(point: &str) -> io::Result<()> {
    let Some(directory) = DIRECTORY.as_ref() else {
        return Ok(());
    };
    File::create(directory.join("hits").join(point))?;
    let Ok(text) = fs::read_to_string(directory.join("plan")) else {
        return Ok(());
    };
    let [identity, planned, hit, action] = text.split_whitespace().collect::<Vec<_>>()[..] else {
        return Ok(());
    };
    let mut plan = PLAN.lock().unwrap_or_else(PoisonError::into_inner);
    if plan.text != text {
        plan.text.clone_from(&text);
        plan.hits = 0;
    }
    if planned != point {
        return Ok(());
    }
    plan.hits = plan.hits.saturating_add(1);
    let is_hit = Ok(plan.hits) == hit.parse();
    match action {
        "kill" | "kill-all" if is_hit && is_first(directory, identity) => die(action == "kill-all"),
        "kill" | "kill-all" => {}
        error if hit.parse().is_ok_and(|first: u64| plan.hits >= first) => {
            return Err(io::Error::from_raw_os_error(match error {
                "ENOSPC" => 28,
                "EROFS" => 30,
                _ => 5, // EIO
            }));
        }
        _ => {}
    }
    Ok(())
}

fn is_first(directory: &Path, identity: &str) -> bool {
    File::create_new(directory.join(format!("fired-{identity}"))).is_ok()
}

/// SIGKILL, to the supervisor and its children, too, if asked for. Safe Rust has no `kill(2)`: a shell has.
fn die(all_processes: bool) -> ! {
    let mut processes = String::new();
    if all_processes && let Ok(supervisor) = std::env::var("ZETAKV_FAILPOINTS_SUPERVISOR") {
        let children = fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children"));
        processes = format!("{supervisor} {}", children.unwrap_or_default());
    }
    let command = format!("kill -KILL {processes} {}", std::process::id());
    let _ = Command::new("sh").args(["-c", &command]).status();
    std::process::abort()
}
