//! The recipe's text.
use super::guess::Guess;
use super::{Cut, Facts, Purpose};
use data::{Layout, Preprocess, Size, Wanted};
use std::fmt::Write;
use technique::Choice;
use train::Tasks;

/// A recipe that runs as it is, with the reason for each guess.
pub(super) fn text(facts: &Facts, purpose: &Purpose) -> String {
    let mut out = String::new();
    head(&mut out, facts);
    data(&mut out, facts);
    let _ = write!(out, "\n[model]\nfile = {}\n", quoted(&facts.model_path));
    if facts.labelled {
        let _ = write!(out, "\n[goals]\n{}", facts.task.example_goal());
    }
    match purpose {
        Purpose::All => {
            quantize(&mut out, facts, 0);
            more(&mut out, facts);
        }
        Purpose::Quantize { epochs } => quantize(&mut out, facts, *epochs),
        Purpose::Prune { sparsity, epochs } => prune(&mut out, facts, *sparsity, *epochs),
        Purpose::PruneChannels { cut, epochs } => prune_channels(&mut out, facts, cut, *epochs),
        Purpose::Distill { student, width, epochs } => distill(&mut out, facts, student, *width, *epochs),
    }
    out += "\n# The standard ONNX file that ships, compared with the simulation and measured in ONNX Runtime.\n[[stages]]\nkind = \"deploy\"\n";
    out
}

fn head(out: &mut String, facts: &Facts) {
    let _ = writeln!(out, "# {}: {}", facts.model_path, facts.description);
    let _ = writeln!(out, "# Every key: espalier explain data, model, goals, preprocess, quantize, prune, distill, finetune, deploy.");
    let _ = writeln!(out, "name = {}\nseed = 1", quoted(&facts.name));
    if facts.task != Choice::default() {
        let _ = writeln!(out, "task = {}", task(&facts.task));
    }
}

fn data(out: &mut String, facts: &Facts) {
    let _ = writeln!(out, "\n[data]\n# {}", facts.data_description);
    let _ = writeln!(out, "train = {}", quoted(&facts.train_path));
    if let Some(warning) = &facts.split_warning {
        comment(out, &format!("Mind: {warning}."));
    }
    let _ = writeln!(out, "test = {}", quoted(&facts.test_path));
    let Some(guess) = &facts.guess else {
        let _ = writeln!(out, "# The model's metadata hold the preprocessing of the images.");
        return;
    };
    if guess.preprocess == Preprocess::default() && guess.reasons.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n[data.preprocess]");
    guess.reasons.iter().for_each(|reason| comment(out, reason));
    if let Some(warning) = &guess.warning {
        comment(out, &format!("Mind: {warning}."));
    }
    settings(out, guess);
}

fn settings(out: &mut String, guess: &Guess) {
    let (p, default) = (&guess.preprocess, Preprocess::default());
    let list = |v: &[f64]| format!("[{}]", v.iter().map(|x| format!("{x:?}")).collect::<Vec<_>>().join(", "));
    if let Some(channels) = p.channels {
        let _ = writeln!(out, "channels = {channels}");
    }
    match p.size {
        Some(Size::ShorterSide(side)) => {
            let _ = writeln!(out, "size = {side}");
        }
        Some(Size::Exact([h, w])) => {
            let _ = writeln!(out, "size = [{h}, {w}]");
        }
        None => {}
    }
    if let Some([h, w]) = p.crop {
        let _ = writeln!(out, "crop = [{h}, {w}]");
    }
    if p.layout == Layout::Nhwc {
        let _ = writeln!(out, "layout = \"nhwc\"");
    }
    if let Some(n) = p.audio_length {
        let _ = writeln!(out, "audio_length = {n}");
    } else {
        let _ = writeln!(out, "scale = {:?}", p.scale);
    }
    if p.arrays {
        let _ = writeln!(out, "arrays = true");
    }
    if p.mean != default.mean {
        let _ = writeln!(out, "mean = {}", list(&p.mean));
    }
    if p.std != default.std {
        let _ = writeln!(out, "std = {}", list(&p.std));
    }
}

fn quantize(out: &mut String, facts: &Facts, epochs: u64) {
    let _ = write!(
        out,
        "\n# 8-bit weights (a scale for each output channel) and activations. auto tries every observer on samples held back.\n[[stages]]\n\
         kind = \"quantize\"\nweights = {{ bits = 8, granularity = \"channel\" }}\nactivations = {{ bits = 8 }}\n\
         calibration = {{ observer = \"auto\", images = {}, batch = {} }}\n",
        facts.calibration_images, facts.batch
    );
    if epochs > 0 {
        let _ = writeln!(out, "# Trains with the quantizers active.\nepochs = {epochs}\nbatch = {}", facts.batch);
        optimizer(out);
    }
}

/// An optimizer for trained weights.
fn optimizer(out: &mut String) {
    out.push_str(
        "# A small rate: the weights are trained already.\noptimizer = { kind = \"adamw\", lr = 1e-4 }\nschedule = { kind = \"cosine\" }\n",
    );
}

fn prune(out: &mut String, facts: &Facts, sparsity: f64, epochs: u64) {
    let _ = write!(
        out,
        "\n# The smallest weights of the whole network become zero; the others are trained. Zeros alone make neither the file smaller nor\n\
         # the network faster in ONNX Runtime; they compress well, and quantizing after it makes the file small.\n[[stages]]\n\
         kind = \"prune\"\nsparsity = {sparsity:?}\nmin_per_layer = 0.05\nepochs = {epochs}\nbatch = {}\n",
        facts.batch
    );
    optimizer(out);
}

/// What makes the smaller network faster too.
const ROUNDED: &str = "# round_to = 16 would keep multiples of 16 channels, which runtimes compute fastest.";

fn prune_channels(out: &mut String, facts: &Facts, cut: &Cut, epochs: u64) {
    let (rounding, how) = match cut {
        Cut::Macs(share) => (ROUNDED, format!("remove = {{ macs = {share:?} }}")),
        Cut::Latency(share) => (
            "# Runtimes compute multiples of 8 channels fastest. The time is measured in ONNX Runtime on this machine.",
            format!("remove = {{ latency = {share:?} }}\nround_to = 8"),
        ),
        Cut::Size(size) => (ROUNDED, format!("budget = {}", size.0)),
    };
    let _ = write!(
        out,
        "\n# The least important channels go, with everything that reads them: the network is smaller.\n\
         # espalier inspect --groups lists them.\n{rounding}\n[[stages]]\nkind = \"prune_channels\"\n{how}\n"
    );
    if epochs > 0 {
        let softened = if facts.task.wanted() == Wanted::Class { "temperature = 2.0\n" } else { "" };
        let teacher = quoted(&facts.model_path);
        let _ = write!(
            out,
            "# What is left learns from the uncut network and from the labels.\nteacher = {teacher}\n{softened}alpha = 0.7\n\
             epochs = {epochs}\nbatch = {}\n",
            facts.batch
        );
        optimizer(out);
    }
}

/// True for a student that is a file, not an architecture.
pub(super) fn is_file(student: &str) -> bool {
    student.contains(['.', '/', '\\'])
}

fn distill(out: &mut String, facts: &Facts, student: &str, width: f64, epochs: u64) {
    let file = is_file(student);
    let student = match file {
        true => format!("{{ file = {} }}", quoted(student)),
        false => format!("{{ arch = {}, width = {width:?} }}", quoted(student)),
    };
    let optimizer = if file { "adamw\", lr = 1e-3" } else { "sgd\", lr = 0.05, nesterov = true, weight_decay = 5e-4" };
    let softened = if facts.task.wanted() == Wanted::Class { "temperature = 4.0\n" } else { "" };
    let _ = write!(
        out,
        "\n# The student learns from the model's outputs (with the weight alpha) and from the labels (with the rest).\n\
         [[stages]]\nkind = \"distill\"\nteacher = {}\nstudent = {student}\n{softened}alpha = 0.7\nepochs = {epochs}\nbatch = {}\n\
         optimizer = {{ kind = \"{optimizer} }}\nschedule = {{ kind = \"cosine\", warm_up = 0.1 }}\n",
        quoted(&facts.model_path),
        facts.batch
    );
}

/// The task as a recipe has it: a name, or a table.
fn task(task: &Choice<Tasks>) -> String {
    if task.settings().is_empty() {
        return quoted(task.kind());
    }
    let settings: Vec<String> = task.settings().iter().map(|(key, value)| format!(", {key} = {value}")).collect();
    format!("{{ kind = {}{} }}", quoted(task.kind()), settings.concat())
}

/// Further stages, commented out.
fn more(out: &mut String, facts: &Facts) {
    if !facts.labelled {
        return;
    }
    let mut text = String::from(
        "\nIf accuracy falls: train with the quantizers active, taught by the float model.\n[[stages]]\nkind = \"finetune\"\n",
    );
    let _ = write!(
        text,
        "teacher = {}\nepochs = 3\nbatch = {}\noptimizer = {{ kind = \"adamw\", lr = 1e-4 }}\n",
        quoted(&facts.model_path),
        facts.batch
    );
    let _ = write!(
        text,
        "\nTo prune, put this before quantize:\n[[stages]]\nkind = \"prune\"\nsparsity = 0.5\nmin_per_layer = 0.05\nepochs = 3\nbatch = {}\n",
        facts.batch
    );
    for line in text.lines() {
        let _ = writeln!(out, "{}", if line.is_empty() { String::new() } else { format!("# {line}") });
    }
}

/// A comment, broken at spaces.
fn comment(out: &mut String, text: &str) {
    const WIDTH: usize = 118;
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            let _ = writeln!(out, "{line}");
            line = "#".into();
        }
        line = format!("{line} {word}");
    }
    let _ = writeln!(out, "{line}");
}

/// A TOML string; JSON strings are valid TOML.
fn quoted(text: &str) -> String {
    serde_json::Value::String(text.to_string()).to_string()
}
