//! A panic ends the program with one line and exit code 70.
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

/// Exit code of an internal error.
pub(crate) const INTERNAL: u8 = 70;

/// Message and source line of the last panic.
static LAST: Mutex<String> = Mutex::new(String::new());

/// Calls `work`; returns `None` after a panic, with a message on stderr. Panics that the library catches and turns into errors,
/// which name the node, print nothing: the hook only remembers them.
pub(crate) fn guard<T>(work: impl FnOnce() -> T) -> Option<T> {
    std::panic::set_hook(Box::new(|info| {
        let what = info.payload().downcast_ref::<&str>().map(|s| s.to_string());
        let what = what.or_else(|| info.payload().downcast_ref::<String>().cloned()).unwrap_or_default();
        let place = info.location().map_or(String::new(), |l| format!(" at {}:{}", l.file(), l.line()));
        if let Ok(mut last) = LAST.lock() {
            *last = format!("internal error{place}: {what}");
        }
    }));
    let done = catch_unwind(AssertUnwindSafe(work)).ok();
    if done.is_none() {
        let last = LAST.lock().map(|l| l.clone()).unwrap_or_default();
        eprintln!("{}; please report this with the command and the model or recipe", espalier::report::text::line(&last));
    }
    done
}
