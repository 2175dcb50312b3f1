//! Channels removed until the deployed file is small or fast enough.
use report::record::StageRecord;
use test_support::folders::recipes;
use test_support::recipe::{DEPLOY_REFERENCE, on_digits};
use test_support::runs::{run, run_in};

const MODEL: &str = "arch = \"resnet8\"\ninput = [1, 8, 8]";

fn cut(settings: &str, deploy: &str) -> Result<StageRecord, String> {
    let stage = format!("name = \"cut\"\nkind = \"prune_channels\"\n{settings}");
    let done = run(&on_digits(MODEL, &[&stage, deploy]), &[]).map_err(|e| e.to_string())?;
    Ok(done.record.stages.into_iter().find(|s| s.name == "cut").unwrap())
}

#[test]
fn channels_go_until_the_file_is_small_enough_and_no_more() {
    let whole = cut("remove = { channels = 0.01 }", DEPLOY_REFERENCE).unwrap().metrics.file_bytes.unwrap();
    let budget = whole * 6 / 10;
    let stage = cut(&format!("budget = \"{budget} B\""), DEPLOY_REFERENCE).unwrap();
    let bytes = stage.metrics.file_bytes.unwrap();
    assert!(bytes <= budget && bytes > budget * 9 / 10, "{bytes} of {budget}");
    let taken = stage.cuts.iter().find(|c| c.chosen).unwrap();
    assert!(taken.meets && taken.bytes == bytes && taken.ms.is_none(), "{taken:?}");
    assert!(stage.cuts.iter().all(|c| c.meets == (c.bytes <= budget)) && stage.cuts.len() > 3, "{:?}", stage.cuts);
    assert!(stage.notes.iter().any(|n| n.text.contains("candidates were cut, written and measured")), "{:?}", stage.notes);
    // What is small enough as it is stays.
    let stage = cut("budget = \"10 MB\"", DEPLOY_REFERENCE).unwrap();
    assert!(stage.notes.iter().any(|n| n.text.contains("nothing was removed")) && stage.cuts.len() == 1, "{:?}", stage.notes);
}

#[test]
fn what_cannot_be_reached_or_measured_is_refused_by_name() {
    let refused = |settings: &str, what: &str| {
        let error = cut(settings, DEPLOY_REFERENCE).unwrap_err();
        assert!(error.contains(what), "{settings}: {error}");
    };
    refused("budget = \"2 kB\"", "kB cannot be reached: with the most channels gone");
    refused("budget = \"0 B\"", "budget = 0");
    refused("remove = { latency = 0.3 }", "the speed of the reference interpreter says nothing");
    refused("remove = { latency = 1.0 }", "it must be below 1");
    refused("round_to = 4", "remove is empty");
}

#[test]
fn a_stage_that_goes_on_takes_the_channels_that_it_took_before() {
    if deploy::runtime::OnnxRuntime::find().is_err() {
        eprintln!("skipped: ONNX Runtime is not installed");
        return;
    }
    let stage = "name = \"cut\"\nkind = \"prune_channels\"\nremove = { latency = 1e-9, macs = 0.3 }\nepochs = 1";
    let text = on_digits(MODEL, &[stage, "kind = \"deploy\"\nthreads = 1\nlatency_runs = 20"]);
    let out = tempfile::tempdir().unwrap();
    let cuts = |overrides: &[&str]| match run_in(&recipes(), out.path(), &text, overrides) {
        Ok(record) => Some(record.stages.into_iter().find(|s| s.name == "cut").unwrap().cuts),
        Err(e) => {
            // A machine under load may find no network faster.
            assert!(e.to_string().contains("less time cannot be reached"), "{e}");
            None
        }
    };
    let Some(first) = cuts(&[]) else { return };
    // Another training of the same cut: the stage runs again, and a time that is measured again is never the same.
    assert_eq!(cuts(&["stages.cut.epochs=2"]).unwrap(), first);
}

#[test]
fn channels_go_until_a_run_is_fast_enough() {
    if deploy::runtime::OnnxRuntime::find().is_err() {
        eprintln!("skipped: ONNX Runtime is not installed");
        return;
    }
    // So little that any smaller network does.
    let deploy = "kind = \"deploy\"\nthreads = 1\nlatency_runs = 50";
    let settings = "remove = { latency = 1e-9, macs = 0.3 }\nround_to = 4";
    match cut(settings, deploy) {
        Ok(stage) => {
            let taken = stage.cuts.iter().find(|c| c.chosen).unwrap();
            assert!(taken.meets && taken.macs >= 0.3 && taken.runtime.as_deref() == Some("onnxruntime"), "{taken:?}");
            assert!(taken.ms.unwrap() <= taken.whole_ms.unwrap(), "{taken:?}");
        }
        // A machine under load may find no network faster.
        Err(e) => assert!(e.contains("less time cannot be reached") && e.contains("ms a run in onnxruntime"), "{e}"),
    }
}
