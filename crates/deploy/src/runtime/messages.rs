//! A runtime's log messages: kept instead of printed, each message once, until they are asked for.
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

static KEPT: Mutex<Messages> = Mutex::new(Messages(BTreeSet::new()));

struct Messages(BTreeSet<String>);

impl Messages {
    fn keep(&mut self, text: &str) {
        self.0.insert(text.trim().to_string());
    }

    fn told_by(&mut self, error: &str) {
        self.0.retain(|kept| !kept.contains(error) && !error.contains(kept.as_str()));
    }

    fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.0).into_iter().collect()
    }
}

fn kept() -> MutexGuard<'static, Messages> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a message, once.
pub(super) fn keep(text: &str) {
    kept().keep(text);
}

/// Drops messages that an error repeats.
pub(super) fn told_by(error: &str) {
    kept().told_by(error);
}

/// The messages since the last call, each once, without those that were returned as errors.
pub fn take() -> Vec<String> {
    kept().take()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_once_and_not_beside_the_error_that_says_it() {
        let mut messages = Messages(BTreeSet::new());
        for text in ["a warning\n", "a warning", "node 'x' failed: no room"] {
            messages.keep(text);
        }
        messages.told_by("no room");
        assert_eq!(messages.take(), ["a warning"]);
        assert!(messages.take().is_empty());
    }
}
