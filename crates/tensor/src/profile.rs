//! Time of a step by operation. While a thread profiles, the sections that it enters by [`section`] are timed by name; the time
//! of an inner section is not counted in the outer one, so the times add up. Otherwise a section costs one check of a flag.
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Time by section.
pub type Times = BTreeMap<String, Duration>;

#[derive(Default)]
struct Profile {
    times: Times,
    /// For each section that is open, the time its inner sections took.
    inner: Vec<Duration>,
}

thread_local! {
    static PROFILE: RefCell<Option<Profile>> = const { RefCell::new(None) };
}

/// Starts timing this thread's sections, from zero.
pub fn start() {
    PROFILE.set(Some(Profile::default()));
}

/// Stops, and returns the times since [`start`].
pub fn stop() -> Times {
    PROFILE.take().map(|p| p.times).unwrap_or_default()
}

/// Runs `work` as a section; `name` is called only while this thread profiles.
pub fn section<R>(name: impl Fn() -> String, work: impl FnOnce() -> R) -> R {
    // Copies from the device are counted by section, profiled or not.
    #[cfg(feature = "gpu")]
    if crate::gpu::active() {
        return crate::gpu::within(name(), || timed(name, work));
    }
    timed(name, work)
}

fn timed<R>(name: impl FnOnce() -> String, work: impl FnOnce() -> R) -> R {
    let opened = PROFILE.with_borrow_mut(|p| p.as_mut().map(|p| p.inner.push(Duration::ZERO)).is_some());
    if !opened {
        return work();
    }
    let began = Instant::now();
    let result = work();
    let took = began.elapsed();
    PROFILE.with_borrow_mut(|p| {
        // There is nothing to close if a new profile began, or this one ended, inside the section.
        if let Some(p) = p.as_mut()
            && let Some(inner) = p.inner.pop()
        {
            *p.times.entry(name()).or_default() += took.saturating_sub(inner);
            if let Some(outer) = p.inner.last_mut() {
                *outer += took;
            }
        }
    });
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inner_section_does_not_count_for_the_outer() {
        let pause = Duration::from_millis(20);
        start();
        section(|| "outer".into(), || section(|| "inner".into(), || std::thread::sleep(pause)));
        section(|| "inner".into(), || ());
        let times = stop();
        assert_eq!(times.keys().collect::<Vec<_>>(), ["inner", "outer"]);
        assert!(times["inner"] >= pause && times["outer"] < pause);
    }

    #[test]
    fn nothing_is_timed_before_the_start_and_after_the_stop() {
        assert_eq!(section(|| "early".into(), || 3), 3);
        start();
        assert!(stop().is_empty());
        section(|| "late".into(), start);
        assert!(stop().is_empty());
    }
}
