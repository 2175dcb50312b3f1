//! Starts a worker for each target, starts it again after a case that ended it, and counts.
use crate::arguments::Arguments;
use crate::targets;
use crate::worker::Source;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::Instant;

/// A target is given up after this many ended workers.
const MOST_ENDS: usize = 200;

/// The result of a target.
#[derive(Default)]
struct Tally {
    cases: u64,
    peak: u64,
    /// The first case of each finding, the number of findings, and the message.
    findings: BTreeMap<String, (u64, usize, String)>,
}

impl Tally {
    fn add(&mut self, place: String, number: u64, what: String) {
        self.findings.entry(place).or_insert((number, 0, what)).1 += 1;
    }
}

/// Runs all targets; true if there is no finding.
pub(crate) fn supervise(a: &Arguments) -> Result<bool, String> {
    let names: Vec<&str> = match a.targets.is_empty() {
        true => targets::ALL.iter().map(|t| t.name).collect(),
        false => a.targets.iter().map(String::as_str).collect(),
    };
    let each = a.seconds / names.len() as f64;
    println!("{:.0} s, seed {}, {} targets", a.seconds, a.seed, names.len());
    println!("{:12} {:>9} {:>9} {:>12} {:>9}", "target", "cases", "cases/s", "most memory", "findings");
    let (mut clean, mut total) = (true, 0);
    for name in names {
        let source = Source::new(name)?;
        let begun = Instant::now();
        let tally = target(a, name, each)?;
        let rate = tally.cases as f64 / begun.elapsed().as_secs_f64().max(1e-9);
        println!("{name:12} {:>9} {rate:>9.0} {:>9} MB {:>9}", tally.cases, tally.peak >> 20, tally.findings.len());
        total += tally.cases;
        for (place, (number, times, what)) in &tally.findings {
            clean = false;
            let case = source.case(a.seed, *number);
            let folder = a.findings.join(format!("{name}-{}-{number}", a.seed));
            case.write(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
            let what: String = what.chars().take(300).collect();
            println!("  {place}: {what}\n    {times} times, first in case {number}, made of {}: {}", case.of, folder.display());
        }
    }
    println!("{total} cases in all: {}", if clean { "no finding" } else { "there are findings" });
    Ok(clean)
}

fn target(a: &Arguments, name: &str, seconds: f64) -> Result<Tally, String> {
    let begun = Instant::now();
    let mut tally = Tally::default();
    let (mut next, mut ends) = (0, 0);
    loop {
        let left = seconds - begun.elapsed().as_secs_f64();
        if left <= 0.0 || next >= a.cases || ends >= MOST_ENDS {
            return Ok(tally);
        }
        let program = std::env::current_exe().map_err(|e| format!("this program is not found: {e}"))?;
        let mut child = Command::new(program)
            .args(["--work", &format!("{name}:{next}"), "--seconds", &left.to_string()])
            .args(["--cases", &a.cases.to_string(), "--seed", &a.seed.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("a worker does not start: {e}"))?;
        // Both pipes are read to the end, so that neither fills.
        let mut errors = child.stderr.take();
        let told = std::thread::spawn(move || {
            let mut text = vec![];
            errors.as_mut().map(|e| e.read_to_end(&mut text));
            String::from_utf8_lossy(&text).into_owned()
        });
        let (mut at, mut done) = (None, false);
        for line in child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines).map_while(Result::ok) {
            let words: Vec<&str> = line.splitn(3, ' ').collect();
            let number = words.get(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or_default();
            match words.as_slice() {
                ["case", ..] => {
                    at = Some(number);
                    tally.cases += 1;
                }
                ["finding", _, rest] => {
                    let (place, what) = rest.split_once('\t').unwrap_or((rest, ""));
                    // Findings count as different if their messages differ apart from numbers.
                    let place = if place == "promise" { format!("promise: {}", unnumbered(what)) } else { place.to_string() };
                    tally.add(place, number, what.to_string());
                }
                ["done", _, memory] => {
                    done = true;
                    let peak = memory.split(' ').next().and_then(|p| p.parse().ok()).unwrap_or_default();
                    tally.peak = tally.peak.max(peak);
                }
                _ => {}
            }
        }
        let status = child.wait().map_err(|e| e.to_string())?;
        let told = told.join().unwrap_or_default();
        if done {
            return Ok(tally);
        }
        let Some(number) = at else { return Err(format!("the worker of {name} did nothing: {status}\n{told}")) };
        // The last message belongs to the end of the worker; earlier ones are requests for memory that failed without harm.
        let last = told.lines().rev().find(|l| l.starts_with("over:") || l.starts_with("deadline:"));
        let place = match last {
            Some(l) if l.starts_with("over:") => format!("memory: {}", l.split(" by ").nth(1).unwrap_or_default()),
            Some(_) => "deadline".to_string(),
            None => format!("ended: {status}"),
        };
        tally.add(place, number, format!("{status}: {}", last.or(told.lines().last()).unwrap_or_default()));
        (next, ends) = (number + 1, ends + 1);
    }
}

/// The beginning of a text without its numbers and quoted names.
fn unnumbered(what: &str) -> String {
    let mut quoted = false;
    let kept = what.chars().filter(|c| {
        quoted ^= *c == '\'';
        !quoted && !c.is_ascii_digit()
    });
    kept.take(80).collect()
}
