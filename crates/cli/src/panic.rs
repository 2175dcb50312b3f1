//! A defect of ours ends the program with one line and exit code 70.

/// Replaces the panic message. Panics that the library catches and turns into errors stay silent.
pub(crate) fn install() {
    std::panic::set_hook(Box::new(|info| {
        if std::thread::current().name() != Some("main") {
            return;
        }
        let what = info.payload().downcast_ref::<&str>().map(|s| s.to_string());
        let what = what.or_else(|| info.payload().downcast_ref::<String>().cloned()).unwrap_or_default();
        let place = info.location().map_or(String::new(), |l| format!(" at {}:{}", l.file(), l.line()));
        eprintln!("internal error{place}: {what}; please report this with the command and the model or recipe");
        std::process::exit(70);
    }));
}
