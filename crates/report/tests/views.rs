//! The views of a record with every field set, and with names that must be escaped.
use espalier_report::record::*;
use espalier_report::{
    RunRecord, curves, html, html_live, markdown, prune_sensitivity_page, prune_sensitivity_text, sensitivity_page, sensitivity_text,
    terminal, terminal_after,
};

fn sensitivities() -> SensitivityRecord {
    let width = |bits: u32| WidthRecord {
        bits,
        noise: if bits == 4 { 0.0 } else { 0.01 },
        loss: Some(0.5 + 1.0 / f64::from(bits)),
        metric: Some(0.9 - 0.01 * f64::from(bits)),
    };
    let group = |layers: &[&str]| GroupRecord {
        layers: layers.iter().map(|l| l.to_string()).collect(),
        activations: vec!["relu<1>".into()],
        elements: 432,
        macs: 1000,
        widths: vec![width(3), width(4)],
    };
    SensitivityRecord {
        schema_version: SCHEMA_VERSION,
        name: "<net>".into(),
        samples: 64,
        taken_from: "validation samples".into(),
        measured: Some(MetricRecord::accuracy()),
        float_loss: Some(0.5),
        float_metric: Some(0.9),
        groups: vec![group(&["conv<1>"]), group(&["a", "b\"", "c"])],
    }
}

fn record() -> RunRecord {
    let metrics = |a, bytes| Metrics { accuracy: Some(a), file_bytes: Some(bytes), parameters: Some(271_122), ..Metrics::default() };
    let epoch = |e: u64| EpochPoint {
        epoch: e,
        loss: 2.0 / e as f64,
        train_accuracy: None,
        validation_accuracy: Some(0.8 + 0.03 * e as f64),
        lr: 0.1,
        images_per_s: None,
        validation: None,
    };
    let train = StageRecord {
        name: "train".into(),
        kind: "train".into(),
        seconds: 12.0,
        metrics: Metrics { images: Some(359), ..metrics(0.99, 1_097_256) },
        epochs: (1..=5).map(epoch).collect(),
        plan: Some(PlanRecord {
            limits: vec![LimitRecord { limit: "3 bits".into(), taken: "2.980 bits".into() }],
            takes: vec!["2.980 bits".into(), "90.1 kB".into()],
            sensitivity: sensitivities(),
            chosen: vec![3, 4],
            file: Some("train.plan.toml".into()),
        }),
        ..StageRecord::default()
    };
    let runtime = |arithmetic, accuracy| RuntimeRecord {
        runtime: "onnxruntime".into(),
        arithmetic,
        accuracy: Some(accuracy),
        latency: Some(Latency { p50_ms: 0.4, p95_ms: 0.5, runs: 100, threads: 2 }),
        ..RuntimeRecord::default()
    };
    let deploy = StageRecord {
        name: "deploy".into(),
        kind: "deploy".into(),
        metrics: Metrics { images: Some(359), macs: Some(431_000), sparsity: Some(0.5), ..metrics(0.985, 92_939) },
        spent: [("measure".to_string(), 0.3)].into(),
        seconds: 0.4,
        classes: Some(ClassesRecord {
            classes: (0..3).map(|label| ClassRecord { label, name: Some(format!("<{label}>")), images: 100, correct: 97 }).collect(),
            confused: vec![Confused { label: 0, taken_for: 2, images: 3 }],
            more: false,
        }),
        layers: vec![LayerRecord {
            name: "conv<1>".into(),
            elements: 432,
            sparsity: 0.5,
            encoding: Some("int8 per channel".into()),
            sqnr_db: Some(41.2),
        }],
        float_parts: vec![FloatPart { node: "softmax".into(), op_type: "Softmax".into(), reason: "no integer kernel".into() }],
        deploy: Some(DeployRecord {
            file: "deployed.onnx".into(),
            runtimes: vec![runtime(Arithmetic::Literal, 0.984), runtime(Arithmetic::Default, 0.98)],
            original: Some(OriginalRecord {
                stage: "train".into(),
                file_bytes: 1_097_256,
                macs: Some(2_520_000),
                latency: Some(Latency { p50_ms: 0.6, p95_ms: 0.9, runs: 100, threads: 2 }),
                peak_memory_bytes: Some(12_000_000),
                accuracy: None,
                figures: Default::default(),
            }),
            placement: Some(PlacementRecord {
                operators: [("Conv".to_string(), NodeCount { integer: 9, float: 1 })].into(),
                conversions: 4,
            }),
            outputs: vec![OutputRecord { name: "logits".into(), sqnr_db: Some(31.5), literal_sqnr_db: Some(32.0), nan_samples: None }],
            ..DeployRecord::default()
        }),
        notes: vec![Note { warning: true, text: "default arithmetic loses 0.40 points: set reduce_range".into() }],
        ..StageRecord::default()
    };
    let goal = GoalRecord {
        goal: "max_accuracy_drop".into(),
        wanted: 0.5,
        measured: Some(0.6),
        met: false,
        sentence: "accuracy fell by 0.60 points; the goal allows 0.5".into(),
    };
    RunRecord {
        schema_version: SCHEMA_VERSION,
        name: "<script>alert(1)</script>".into(),
        command: vec!["espalier".into(), "run".into(), "a b.toml".into()],
        recipe: RecipeRecord { text: "name = \"<b>\"".into(), overrides: vec!["seed=2".into()], ..RecipeRecord::default() },
        inputs: vec![InputRecord { role: "data.test".into(), path: "di<gits".into(), blake3: "ab12".into() }],
        stages: vec![train, deploy],
        goals: vec![goal],
        ..RunRecord::default()
    }
}

#[test]
fn the_page_has_every_section_and_fetches_nothing() {
    let page = html(&record());
    let ids = ["warnings", "goals", "before-after", "stages", "curves", "trade", "runtimes", "placement", "float"];
    for id in ids.into_iter().chain(["classes", "layers", "widths", "time", "notes", "environment"]) {
        assert!(page.contains(&format!("<section id=\"{id}\">")), "{id}");
    }
    assert!(!page.contains("<script") && page.contains("&lt;script&gt;") && page.contains("conv&lt;1&gt;"));
    assert!(!page.contains("http") && page.contains("prefers-color-scheme"));
}

#[test]
fn sensitivities_are_a_table_for_people_and_for_programs() {
    let record = sensitivities();
    let (text, page, csv) = (sensitivity_text(&record), sensitivity_page(&record), record.to_csv());
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("layers ") && lines[0].contains("accuracy at 3") && !lines[0].contains("loss"), "{text}");
    assert!(lines[2].starts_with("conv<1>") && lines[2].contains("20.0 dB") && lines[2].contains('∞'), "{text}");
    assert!(
        lines[3].starts_with("a and 2 more") && lines[3].contains("-3.00 points") && lines[4].contains("64 validation samples"),
        "{text}"
    );
    assert_eq!(page.matches("<svg").count(), 3);
    assert!(page.contains("&lt;net&gt; · Espalier") && page.contains("conv&lt;1&gt;") && page.contains("loss 4"), "{page}");
    assert_eq!(csv.lines().nth(1), Some("\"conv<1>\",432,1000,3,0.01,20,0.8333333333333333,0.87"));
    assert_eq!(csv.lines().nth(4), Some("\"a b\"\" c\",432,1000,4,0,,0.75,0.86"));
    let unlabelled = SensitivityRecord { measured: None, float_loss: None, float_metric: None, ..record };
    assert_eq!(sensitivity_page(&unlabelled).matches("<svg").count(), 1);
    // In a run's page the widths that were chosen stand beside what they were chosen by.
    let page = html(&self::record());
    for told in ["<section id=\"widths\">", "Widths after train", "2.980 bits of at most 3 bits", "train.plan.toml", "<th>chosen</th>"] {
        assert!(page.contains(told), "{told}");
    }
}

#[test]
fn sensitivities_to_pruning_are_a_table_for_people_and_for_programs() {
    let effect =
        |sparsity: f64| SparsityEffect { sparsity, noise: sparsity / 10.0, loss: Some(0.5 + sparsity), metric: Some(0.9 - sparsity / 5.0) };
    let layer = |weight: &str| PrunedLayer { weight: weight.into(), elements: 1432, sparsities: vec![effect(0.1), effect(0.975)] };
    let record = PruneSensitivityRecord {
        schema_version: SCHEMA_VERSION,
        name: "<net>".into(),
        by: "magnitude, granularity filter".into(),
        samples: 64,
        taken_from: "validation samples".into(),
        measured: Some(MetricRecord::accuracy()),
        whole_loss: Some(0.5),
        whole_metric: Some(0.9),
        layers: vec![layer("a<1>"), layer("b\"")],
        dense: vec![("c".into(), "it is <small>".into())],
    };
    let (text, page, csv) = (prune_sensitivity_text(&record), prune_sensitivity_page(&record), record.to_csv());
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("weight ") && lines[0].contains("97.5 %") && lines[0].contains("accuracy at 10 %"), "{text}");
    assert!(lines[2].starts_with("a<1>") && lines[2].contains("20.0 dB") && lines[2].contains("-19.50 points"), "{text}");
    assert!(lines[4].contains("by magnitude, granularity filter") && lines[4].contains("Dense: c (it is <small>)"), "{text}");
    assert_eq!(page.matches("<svg").count(), 3);
    assert!(page.contains("a&lt;1&gt;") && page.contains("Change of accuracy by sparsity") && page.contains("&lt;small&gt;"), "{page}");
    assert_eq!(csv.lines().nth(1), Some("\"a<1>\",1432,0.1,0.01,20,0.6,0.88"));
    // In a run's page the shares that were chosen stand beside what they were chosen by.
    let mut run = self::record();
    run.stages[0].shares = Some(SharesRecord { sparsity: 0.5, sensitivity: record, chosen: vec![0.1, 0.9] });
    let page = html(&run);
    for told in ["<section id=\"sparsities\">", "Sparsities after train", "Chosen for 50.00 %", "<td>90.0 %</td>"] {
        assert!(page.contains(told), "{told}");
    }
}

#[test]
fn candidates_of_two_stages_have_sections_of_their_own() {
    let mut r = record();
    for stage in &mut r.stages[..2] {
        stage.cuts = vec![CutRecord { channels: 3, bytes: 100, whole_bytes: 200, ..CutRecord::default() }];
    }
    let page = html(&r);
    for id in ["cuts", "cuts-2"] {
        assert_eq!(page.matches(&format!("<section id=\"{id}\">")).count(), 1, "{id}");
    }
}

#[test]
fn an_empty_record_and_figures_that_are_not_finite_give_a_page() {
    let mut r = record();
    r.stages[0].epochs[0].loss = f64::NAN;
    assert!(!html(&r).contains("NaN"));
    assert!(html(&RunRecord::default()).ends_with("</html>\n"));
}

#[test]
fn the_page_tells_the_warning_first_and_what_deploying_changed() {
    let page = html(&record());
    let at = |what: &str| page.find(what).unwrap_or_else(|| panic!("{what} is missing"));
    assert!(at("set reduce_range") < at("Before and after") && at("Before and after") < at("Stage by stage"));
    for told in ["11.8 times smaller", "1.50 times faster", "5.85 times fewer", "-1.00 points", "<details open>", "seed=2", "ab12"] {
        at(told);
    }
    assert!(page.contains("&lt;0&gt;") && page.contains("di&lt;gits"));
    assert!(!page.contains("http-equiv") && html_live(&record(), 3).contains("http-equiv=\"refresh\" content=\"3\""));
}

#[test]
fn accuracies_over_different_images_are_not_compared() {
    let (mut r, told) = (record(), |r: &RunRecord| html(r) + &terminal(r));
    r.stages[0].classes = r.stages[1].classes.clone();
    let page = told(&r);
    assert!(
        page.contains("-1.00 points")
            && page.contains("from 99.00 %")
            && page.contains("<th>after train</th>")
            && page.contains("id=\"trade\"")
    );
    r.stages[1].deploy.as_mut().unwrap().chosen_images = Some(5);
    r.stages[1].metrics.images = Some(5);
    let page = told(&r);
    assert!(page.contains("from 359 test samples, and 5 of them after deploy"), "{page}");
    assert!(!page.contains("-1.00 points") && !page.contains("from 99.00 %") && !page.contains("<th>after train</th>"));
    assert!(!page.contains("id=\"trade\""));
    // The original model's accuracy on the same images.
    r.stages[1].deploy.as_mut().unwrap().original.as_mut().unwrap().accuracy = Some(0.8);
    let page = told(&r);
    assert!(page.contains("+18.00 points") && page.contains("from 80.00 %"));
}

#[test]
fn text_views_show_the_accuracy_that_ships_the_warnings_and_the_missed_goal() {
    let text = terminal(&record());
    assert!(text.contains("98.00 % (96.0..99.0)") && text.contains("✗ accuracy fell by 0.60 points"), "{text}");
    assert!(
        text.contains("warning: deploy: default arithmetic") && text.contains("latency p50  0.60 ms → 0.40 ms (1.50 times faster)"),
        "{text}"
    );
    assert!(text.contains("sparsity: zeros alone make neither"), "{text}");
    assert!(!terminal_after(&record(), &|stage, _| stage == "deploy").contains("warning:"));
    let markdown = markdown(&record());
    assert!(markdown.contains("| deploy | 98.00 %") && markdown.contains("- **warning:** deploy: default arithmetic"), "{markdown}");
    assert!(markdown.contains("| latency p50 | 0.60 ms | 0.40 ms | 1.50 times faster |"), "{markdown}");
}

/// The same run as a regression: no accuracy anywhere.
fn regression() -> RunRecord {
    let metric = |key: &str, label: &str, better| MetricRecord { key: key.into(), label: label.into(), better, percent: false };
    let mut r = record();
    r.task =
        TaskRecord { kind: "regression".into(), metrics: vec![metric("mae", "MAE", Better::Lower), metric("r2", "R²", Better::Higher)] };
    for (stage, mae) in r.stages.iter_mut().zip([0.2, 0.25]) {
        stage.classes = None;
        stage.metrics.accuracy = None;
        stage.plan = None;
        stage.metrics.keep(&[("mae", mae), ("r2", 0.9)].into());
        stage.metrics.intervals.insert("mae".into(), [mae - 0.01, mae + 0.01]);
        for e in &mut stage.epochs {
            (e.validation_accuracy, e.validation) = (None, Some(1.0 / e.epoch as f64));
        }
        for runtime in stage.deploy.iter_mut().flat_map(|d| &mut d.runtimes) {
            runtime.accuracy = None;
            runtime.keep(&[("mae", mae)].into());
            runtime.differences = [("mean_difference".to_string(), 0.003), ("largest_difference".to_string(), 0.02)].into();
        }
    }
    r.goals.clear();
    r
}

#[test]
fn a_regression_is_told_by_its_own_figures() {
    let r = regression();
    let (text, page) = (terminal(&r), html(&r));
    assert!(text.contains("MAE") && text.contains("R²") && text.contains("0.2500 (0.2400..0.2600)"), "{text}");
    assert!(text.contains("MAE          0.2000 (0.1900..0.2100) → 0.2500 (0.2400..0.2600) (+0.05000, worse)"), "{text}");
    assert!(text.contains("the 95 % confidence interval of the MAE"), "{text}");
    for told in ["MAE against file size", "MAE: validation", "differs by 0.30 % of the targets' standard deviation, at most 2.00 %"] {
        assert!(page.contains(told), "{told}");
    }
    let views = text + &page + &markdown(&r) + &curves(&r);
    assert!(!views.contains("ccuracy"), "{views}");
    let read: RunRecord = serde_json::from_str(&r.to_json()).unwrap();
    assert_eq!(read, r);
    assert!(!record().to_json().contains("\"task\""), "a classification's record is as it was");
}

#[test]
fn what_ran_in_an_earlier_call_keeps_its_time() {
    let mut r = record();
    for stage in &mut r.stages {
        stage.status = Status::Cached;
    }
    r.seconds = 0.09;
    let text = terminal(&r);
    assert!(text.contains("12 s (earlier)") && !text.contains("0.09"), "{text}");
    assert!(html(&r).contains("<b>12 s</b>"));
}

#[test]
fn curves_are_a_table_for_other_programs() {
    let text = curves(&record());
    assert_eq!(text.lines().nth(4), Some("train,4,0.5,,0.92,0.1,"));
    assert_eq!(text.lines().count(), 6);
}

#[test]
fn a_record_survives_its_file_and_a_newer_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.json");
    std::fs::write(&file, record().to_json()).unwrap();
    assert_eq!(RunRecord::load(folder.path()).unwrap(), record());
    std::fs::write(&file, "{\"schema_version\": 99}").unwrap();
    assert!(RunRecord::load(&file).unwrap_err().to_string().contains("newer Espalier"));
}

/// The page in headless Chromium: no console error, the elements are there. Skipped where there is no Chromium.
#[test]
fn chromium_renders_the_page_without_a_console_error() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("report.html");
    std::fs::write(&page, html(&record())).unwrap();
    let profile = format!("--user-data-dir={}", folder.path().join("profile").display());
    let flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
                 --disable-component-update --disable-sync --enable-logging=stderr --dump-dom";
    let run = std::process::Command::new("chromium").args(flags.split_whitespace()).arg(&profile).arg(&page).output();
    let Ok(out) = run else {
        println!("skipped: chromium is not installed");
        return;
    };
    let (dom, log) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(!log.contains("CONSOLE"), "{log}");
    assert!(dom.contains("<svg") && dom.contains("id=\"layers\"") && dom.contains("</table>"), "{dom}\n{log}");
}

/// Writes the page where a person wants to look at it: `ESPALIER_REPORT_SAMPLE=page.html cargo test -p espalier-report`.
#[test]
fn sample() {
    if let Some(path) = std::env::var_os("ESPALIER_REPORT_SAMPLE") {
        std::fs::write(path, html(&record())).unwrap();
    }
}

/// Replaces every text of a record by one with control characters or markup for a browser, a terminal or Markdown.
const HOSTILE: &str =
    "<script>alert(1)</script>\"'><img src=x onerror=y>\u{1b}[2J\u{9b}31m\u{202e}\u{0}\r\n✓ forged | `x` [l](http://e) ![i](u) &lt;";

fn hostile(value: &mut serde_json::Value) {
    match value {
        // Other strings are enumerations, which would not parse with another text.
        serde_json::Value::String(s) if !["run", "cached", "literal", "default", "higher", "lower"].contains(&s.as_str()) => {
            *s = HOSTILE.into()
        }
        serde_json::Value::Array(list) => list.iter_mut().for_each(hostile),
        serde_json::Value::Object(map) => map.values_mut().for_each(hostile),
        _ => {}
    }
}

#[test]
fn no_field_of_a_record_is_obeyed() {
    let mut r = record();
    let one = r.stages[1].clone();
    r.start = Some(StageRecord { name: "start".into(), ..one });
    r.environment.cpu = "cpu".into();
    r.environment.runtimes.insert("a".into(), "b".into());
    r.recipe.text = "x".into();
    r.recipe.overrides = vec!["x".into()];
    let mut json: serde_json::Value = serde_json::from_str(&r.to_json()).unwrap();
    hostile(&mut json);
    let r: RunRecord = serde_json::from_value(json).unwrap();
    assert!(r.name == HOSTILE && r.stages[1].layers[0].name == HOSTILE && r.stages[1].notes[0].text == HOSTILE);
    let (page, shown, marked) = (html(&r), terminal(&r), markdown(&r));
    for (view, text) in [("html", &page), ("terminal", &shown), ("markdown", &marked)] {
        let bad = text.chars().find(|c| c.is_control() && *c != '\n' && *c != '\t' || *c == '\u{202e}');
        assert!(bad.is_none(), "{view}: {bad:?}");
    }
    // No element begins and no attribute ends in it: the rest of the text is inside entities.
    assert!(!page.contains("<script") && !page.contains("<img") && !page.contains("\"'>"));
    assert!(!shown.lines().any(|l| l.starts_with("✓ forged")), "{shown}");
    assert!(!marked.lines().any(|l| l.starts_with("✓ forged")), "{marked}");
    // The command stands in a code span, in which everything but a backtick is text.
    let (before, command) = marked.rsplit_once("\n`").unwrap();
    let (_, after) = command.split_once('`').unwrap();
    for text in [before, after] {
        assert!(!text.contains("<script") && !text.contains("[l](") && !text.contains("![i]("), "{text}");
    }
}
