use super::*;

const HEAD: &str = "name = \"t\"\n[model]\narch = \"lenet5\"\n[data]\ntrain = \"mnist\"\n";

fn error(tail: &str) -> RecipeError {
    parse(&format!("{HEAD}{tail}"), &[]).unwrap_err()
}

#[test]
fn the_recipes_of_the_repository_are_read_and_survive_a_round_trip() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "toml") {
            let loaded = load(&path, &[]).unwrap_or_else(|e| panic!("{e}\n{}", e.snippet().unwrap_or_default()));
            let again = parse(&loaded.recipe.to_text().unwrap(), &[]).unwrap();
            assert_eq!(loaded.recipe, again);
            seen += 1;
        }
    }
    assert!(seen >= 4);
}

#[test]
fn an_unknown_key_is_pointed_at_with_what_was_meant() {
    let e = error("[[stages]]\nkind = \"prune\"\nsparsty = 0.5\n");
    assert_eq!(e.message, "unknown key 'sparsty' in a 'prune' stage");
    assert_eq!(e.hint.as_deref(), Some("did you mean 'sparsity'?"));
    assert_eq!(e.snippet().unwrap(), " --> recipe:8:1\n  |\n8 | sparsty = 0.5\n  | ^^^^^^^");
}

#[test]
fn keys_that_kinds_of_stages_share_are_known_in_each() {
    for kind in ["distill", "finetune"] {
        let e = error(&format!("[[stages]]\nkind = \"{kind}\"\nteacher = \"t.onnx\"\ntemprature = 2.0\n"));
        assert_eq!((e.line_column(), e.hint.as_deref()), (Some((9, 1)), Some("did you mean 'temperature'?")), "{e}");
        let e = error(&format!("[[stages]]\nkind = \"{kind}\"\nteacher = \"t.onnx\"\nepoch = 2\n"));
        assert_eq!(e.hint.as_deref(), Some("did you mean 'epochs'?"), "{e}");
    }
}

#[test]
fn an_unknown_key_in_a_nested_table_is_pointed_at() {
    let e = error("[[stages]]\nkind = \"train\"\noptimizer = { kind = \"sgd\", lr = 0.1, momentun = 0.9 }\n");
    assert_eq!(e.line_column(), Some((8, 39)), "{e}");
    assert_eq!(e.hint.as_deref(), Some("did you mean 'momentum'?"));
}

#[test]
fn faults_are_named_with_their_line() {
    for (tail, line, message) in [
        ("[[stages]]\nkind = \"prun\"\n", 7, "unknown kind of stage 'prun'"),
        ("[[stages]]\nsparsity = 0.5\n", 6, "a stage needs a kind"),
        ("[[stages]]\nkind = \"prune\"\n", 6, "the key 'sparsity' is missing in a 'prune' stage"),
        ("[[stages]]\nkind = \"prune\"\nsparsity = 90\n", 8, "sparsity = 90 is not within 0..1"),
        ("[[stages]]\nkind = \"prune\"\nsparsity = \"half\"\n", 8, "invalid type: string \"half\", expected a number"),
        ("[[stages]]\nkind = \"train\"\n[[stages]]\nkind = \"train\"\n", 8, "two stages are named 'train'"),
        ("[[stages]]\nkind = \"distill\"\nteacher = \"trian\"\n", 8, "no earlier stage is named 'trian'"),
        ("[[stages]]\nkind = \"quantize\"\ncalibration = { observer = \"minmax\" }\n", 8, "there is no observer 'minmax'"),
        ("[[stages]]\nkind = \"train\"\nmodel = { arch = \"resnet21\" }\n", 8, "unknown architecture 'resnet21'"),
        ("[[stages]]\nkind = \"train\"\nepochs = -1\n", 8, "invalid value: integer `-1`, expected a whole number, 0 or more"),
        ("[[stages]]\nkind = \"train\"\nschedule = \"cosin\"\n", 8, "there is no schedule 'cosin'; did you mean 'cosine'?"),
        ("[[stages]]\nkind = \"train\"\n[stages.optimizer]\nkind = \"sgd\"\nlr = -1\n", 10, "lr = -1: a positive number is needed"),
        ("[[stages]]\nkind = \"train\"\nmodel = { arch = \"lenet5\", classes = 0 }\n", 8, "classes is 0"),
        ("[[stages]]\nkind = \"distill\"\nteacher = \"t.onnx\"\nstudent = { arch = \"mlp\", width = -1 }\n", 9, "width is -1"),
        ("[goals]\nmax_accuracy_drop = -1\n[[stages]]\nkind = \"train\"\n", 7, "max_accuracy_drop = -1 is not within 0..100"),
        ("[goals]\nmin_accuracy = nan\n[[stages]]\nkind = \"train\"\n", 7, "min_accuracy = NaN is not within 0..100"),
        ("[goals]\nmax_latency_ms = 0\n[[stages]]\nkind = \"train\"\n", 7, "max_latency_ms = 0"),
        ("[[stages]]\nkind = \"train\"\nearly_stopping = 2\n", 8, "early_stopping needs validation images"),
        ("[[stages]]\nkind = \"train\"\nearly_stopping = 0\n", 8, "early_stopping = 0"),
        ("[[stages]]\nkind = \"finetune\"\nteacher = \"t.onnx\"\nalpha = 1.5\n", 9, "alpha = 1.5 is not within 0..1"),
        ("[[stages]]\nkind = \"finetune\"\nlosses = [\"hinton\"]\n", 8, "losses compares with a teacher, and the stage has none"),
        (
            "[[stages]]\nkind = \"distill\"\nteacher = \"t.onnx\"\nlosses = [\"hintn\"]\n",
            9,
            "there is no loss 'hintn'; did you mean 'hinton'?",
        ),
        (
            "[[stages]]\nkind = \"distill\"\nteacher = \"t.onnx\"\nalpha = 0.5\nlosses = [\"hinton\"]\n",
            9,
            "alpha is a short form of Hinton's loss",
        ),
        (
            "[[stages]]\nkind = \"distill\"\nteacher = \"t.onnx\"\nlosses = [{ kind = \"hinton\", weight = -1 }]\n",
            9,
            "weight = -1: a number of 0 or more",
        ),
        (
            "[[stages]]\nkind = \"distill\"\nteacher = \"t.onnx\"\nlosses = [{ kind = \"feature\", paris = [] }]\n",
            9,
            "unknown key 'paris' in a 'distill' stage",
        ),
        ("[[stages]]\nkind = \"prune\"\nsparsity = 0.5\nmin_per_layer = 5\n", 9, "min_per_layer = 5 is not within 0..1"),
        ("[[stages]]\nkind = \"prune\"\nsparsity = 1.0\n", 8, "sparsity = 1 leaves no weight: it must be below 1"),
        ("[[stages]]\nkind = \"prune\"\nsparsity = 0.5\ncriterion = \"tailor\"\n", 9, "there is no criterion 'tailor'"),
        ("[[stages]]\nkind = \"prune\"\nsparsity = 0.5\ncriterion = { kind = \"taylor\", batches = 0 }\n", 9, "batches = 0"),
        ("[[stages]]\nkind = \"prune\"\nsparsity = 0.5\ncriterion = { kind = \"taylor\", batch = 2 }\n", 9, "unknown key 'batch'"),
        ("[[stages]]\nkind = \"prune\"\nsparsity = 0.5\nmethod = \"magnitud\"\n", 9, "there is no criterion 'magnitud'"),
        ("[[stages]]\nkind = \"prune\"\nsparsity = 0.5\nsparsity_schedule = \"cubic\"\n", 9, "the schedule cubic prunes while the stage"),
        (
            "[[stages]]\nkind = \"prune\"\nsparsity = 0.5\nepochs = 2\nsparsity_schedule = { kind = \"cubic\", initial = 0.6 }\n",
            10,
            "initial = 0.6 is more than the sparsity of 0.5",
        ),
        ("[[stages]]\nkind = \"average\"\nepochs = 3\nlast = 4\n", 9, "last = 4 is not within 1..3"),
        ("[[stages]]\nkind = \"average\"\nepochs = 0\n", 8, "epochs = 0: there are no weights"),
        ("[[stages]]\nkind = \"deploy\"\nthreads = 0\n", 8, "threads = 0"),
        ("[[stages]]\nkind = \"train\"\nmemory = 0\n", 8, "memory = 0"),
        ("[[stages]]\nkind = \"train\"\nmemory = \"2 apples\"\n", 8, "invalid value: string \"2 apples\", expected a size such as"),
        ("[[stages]]\nkind = \"deploy\"\nmemory = \"2 GB\"\n", 8, "unknown key 'memory' in a 'deploy' stage"),
        ("test_rows = [0, 9]\n[[stages]]\nkind = \"train\"\n", 6, "test_rows is a part of data.test"),
        ("[data.augment]\ncrop_padding = 99999999\n[[stages]]\nkind = \"train\"\n", 7, "crop_padding = 99999999 is not within"),
        ("[[stages]\n", 6, "not valid TOML"),
        ("", 1, "the recipe has no stage"),
    ] {
        let e = error(tail);
        assert!(e.message.starts_with(message), "{tail}: {e}");
        assert_eq!(e.line_column().map(|p| p.0), Some(line), "{tail}: {e}");
    }
}

#[test]
fn samples_that_no_data_hold_are_missed_before_the_run() {
    let refused = |data: &str, stage: &str| {
        let text = format!("name = \"t\"\n[model]\nfile = \"m.onnx\"\n{data}[[stages]]\n{stage}\n");
        parse(&text, &[]).unwrap_err().message
    };
    let rows = refused("[data]\ntest = \"mnist\"\ntrain_rows = [0, 9]\n", "kind = \"deploy\"");
    assert!(rows.starts_with("train_rows is a part of data.train"), "{rows}");
    for data in ["", "[data]\ntest = \"mnist\"\n"] {
        let shares = refused(data, "kind = \"prune\"\nsparsity = 0.5\nscope = \"sensitivity\"");
        assert!(shares.starts_with("sensitivity measures each layer on samples"), "{shares}");
    }
}

#[test]
fn overrides_reach_stages_by_name() {
    let text = format!("{HEAD}[[stages]]\nkind = \"prune\"\nsparsity = 0.5\n");
    let set = |s: &str| parse(&text, &[s.to_string()]);
    let recipe = set("stages.prune.sparsity=0.7").unwrap();
    assert_eq!(parse(&recipe.to_text().unwrap(), &[]), Ok(recipe.clone()), "its text stands for it");
    assert_eq!(recipe.stages[0].get::<PruneStage>().and_then(|p| p.settings.sparsity), Some(0.7));
    assert_eq!(set("goals.max_file_size=50 kB").unwrap().goals.max_file_size, Some(ByteSize(50_000)));
    assert_eq!(set("seed = 7").unwrap().seed, 7);
    assert_eq!(set("seed=9223372036854775807").unwrap().seed, i64::MAX as u64);
    let e = parse(&text.replacen("name", "seed = 18446744073709551615\nname", 1), &[]).unwrap_err();
    assert!(e.message.starts_with("seed = 18446744073709551615 is not within 0.."), "{e}");
    assert_eq!(set("stages.prune.memory=2 GB").unwrap().stages[0].training().unwrap().memory, Some(ByteSize(2_000_000_000)));
    for (bad, message, hint) in [
        ("stages.prun.sparsity=1", "--set stages.prun.sparsity=1: no stage is named 'prun'", Some("did you mean 'prune'?")),
        (
            "stages.prune.sparsty=1",
            "--set stages.prune.sparsty=1: unknown key 'sparsty' in a 'prune' stage",
            Some("did you mean 'sparsity'?"),
        ),
        ("stages.prune.sparsity=7", "--set stages.prune.sparsity=7: sparsity = 7 is not within 0..1", None),
        ("seed", "--set seed: is not KEY=VALUE", Some("for example --set stages.prune.sparsity=0.7")),
        ("seed=9223372036854775808", "--set seed=9223372036854775808: 9223372036854775808 is not a whole number within", None),
    ] {
        let e = set(bad).unwrap_err();
        assert!(e.message.starts_with(message), "{e}");
        assert_eq!(e.hint.as_deref(), hint);
        assert_eq!(e.snippet(), None);
    }
}

#[test]
fn the_old_name_of_the_criterion_is_read() {
    let stage = |line: &str| {
        let recipe = parse(&format!("{HEAD}[[stages]]\nkind = \"prune\"\nsparsity = 0.5\n{line}\n"), &[])?;
        Ok::<_, RecipeError>(recipe.stages[0].get::<PruneStage>().cloned().unwrap())
    };
    let (old, new) = (stage("method = \"magnitude\"").unwrap(), stage("criterion = \"magnitude\"").unwrap());
    assert_eq!(old.settings, new.settings);
    assert!(old.renamed && !new.renamed);
    let both = stage("method = \"magnitude\"\ncriterion = \"taylor\"").unwrap_err();
    assert!(both.message.contains("duplicate field `criterion`"), "{both}");
}

#[test]
fn the_schema_describes_every_key() {
    let text = schema().to_string();
    for key in ["max_accuracy_drop", "sparsity", "temperature", "crop_padding", "percentile", "momentum", "warm_up", "memory"] {
        assert!(text.contains(key), "{key}");
    }
}

#[test]
fn an_optimizer_that_is_not_named_follows_from_whether_the_weights_are_trained() {
    let text = "name = \"t\"\n[data]\ntrain = \"d\"\n[model]\nMODEL\n[[stages]]\nkind = \"train\"\n[[stages]]\nkind = \"prune\"\nsparsity = 0.5\n\
                [[stages]]\nkind = \"finetune\"\n[[stages]]\nkind = \"distill\"\nteacher = \"train\"\nstudent = { arch = \"mlp\" }\n\
                [[stages]]\nname = \"own\"\nkind = \"finetune\"\noptimizer = { kind = \"sgd\", lr = 0.3 }\n";
    let (fresh, gentle) = (Sgd::for_random_weights(), AdamW::for_trained_weights());
    let chosen = |r: &Recipe| (0..5).map(|i| r.optimizer(i).unwrap()).collect::<Vec<_>>();
    let own: Choice<Optimizers> = toml::from_str("kind = \"sgd\"\nlr = 0.3").unwrap();
    let built = parse(&text.replace("MODEL", "arch = \"mlp\""), &[]).unwrap();
    let of = |first: &Choice<Optimizers>| {
        vec![(first.clone(), true), (gentle.clone(), true), (gentle.clone(), true), (fresh.clone(), true), (own.clone(), false)]
    };
    assert_eq!(chosen(&built), of(&fresh));
    let file = parse(&text.replace("MODEL", "file = \"m.onnx\""), &[]).unwrap();
    assert_eq!(chosen(&file), of(&gentle));
    // One key of a default that is not written in the recipe.
    let set = parse(&text.replace("MODEL", "file = \"m.onnx\""), &["stages.finetune.optimizer.lr=0.001".into()]).unwrap();
    let (optimizer, open) = set.optimizer(2).unwrap();
    assert!(optimizer.kind() == "adamw" && optimizer.lr() == 0.001 && !open, "{optimizer:?}");
}

/// Recipes around an example: as a stage of some kind, with the keys that such a stage requires.
fn with_example(example: &str) -> Result<Recipe, Vec<RecipeError>> {
    let head = format!("{HEAD}[[stages]]\nkind = \"train\"\n");
    let required = [
        "",
        "sparsity = 0.5\n",
        "teacher = \"train\"\n",
        "epochs = 2\n",
        "epochs = 2\nsparsity = 0.5\n",
        "epochs = 2\nteacher = \"train\"\n",
    ];
    let stages = Stage::kinds()
        .flat_map(|kind| required.map(|keys| format!("{head}[[stages]]\nkind = \"{kind}\"\nname = \"own\"\n{keys}{example}\n")));
    let mut failures = vec![];
    for text in stages.chain([format!("{head}{example}\n"), format!("{example}\n{head}")]) {
        match parse(&text, &[]) {
            Ok(recipe) => return Ok(recipe),
            Err(e) => failures.push(e),
        }
    }
    Err(failures)
}

#[test]
fn every_technique_is_documented_and_its_example_is_read() {
    for family in families() {
        assert!(family.summary.ends_with('.') && !family.members.is_empty(), "{}", family.name);
        if let Some(default) = family.default {
            assert!(family.members.iter().any(|m| m.manual.name == default), "{}", family.name);
        }
        for member in &family.members {
            let manual = &member.manual;
            assert!(manual.summary.ends_with('.') && !manual.example.is_empty(), "{} {}", family.name, manual.name);
            let named = manual.example.contains(manual.name) || family.default == Some(manual.name);
            assert!(named, "{} {}: {}", family.name, manual.name, manual.example);
            assert!(member.settings.iter().all(|s| !s.summary.is_empty()), "{} {}", family.name, manual.name);
            if let Err(failures) = with_example(manual.example) {
                panic!(
                    "{} {}: {}: {:?}",
                    family.name,
                    manual.name,
                    manual.example,
                    failures.iter().map(|e| e.to_string()).collect::<Vec<_>>()
                );
            }
        }
    }
    for kind in crate::stages::kinds() {
        let text = format!(
            "{HEAD}[[stages]]\nkind = \"train\"\n[[stages]]\nname = \"own\"\nkind = \"{}\"\n{}",
            kind.manual.name, kind.manual.example
        );
        parse(&text, &[]).unwrap_or_else(|e| panic!("{}: {e}", kind.manual.name));
    }
}

#[test]
fn samples_is_another_word_for_images_where_they_need_not_be_pictures() {
    let with = |key: &str| {
        let stages =
            format!("{HEAD}[[stages]]\nkind = \"quantize\"\ncalibration = {{ {key} = 64 }}\n[[stages]]\nkind = \"deploy\"\n{key} = 5\n");
        parse(&stages, &[]).unwrap()
    };
    assert_eq!(with("samples"), with("images"));
}

#[test]
fn a_task_is_a_name_or_a_table_and_goals_are_about_its_figures() {
    let with = |task: &str, goals: &str| {
        let text = format!("task = {task}\n{HEAD}[goals]\n{goals}\n[[stages]]\nkind = \"train\"\n");
        parse(&text, &[]).map_err(|e| format!("{e} {}", e.hint.clone().unwrap_or_default()))
    };
    assert_eq!(with("\"classification\"", "").unwrap().task.kind(), "classification");
    let named = with("{ kind = \"regression\", target = \"angles\" }", "metrics.mae = { max = 0.3, max_rise = 0.1 }").unwrap();
    assert_eq!(named.task.wanted(), data::Wanted::Values { array: Some("angles".into()) });
    assert_eq!(named.goals.metrics["mae"].max, Some(0.3));
    assert_eq!(parse(&named.to_text().unwrap(), &[]).unwrap(), named, "its text stands for it");
    for (task, goals, part) in [
        ("\"regresion\"", "", "did you mean 'regression'?"),
        ("\"regression\"", "max_accuracy_drop = 1", "a regression has no accuracy"),
        ("\"regression\"", "metrics.mea = { max = 1 }", "did you mean 'mae'?"),
        ("\"regression\"", "metrics.mae = { max_rise = -1 }", "max_rise = -1"),
        ("\"regression\"", "metrics.mae = {}", "is empty"),
        ("\"classification\"", "metrics.mae = { max = 1 }", "are: accuracy"),
    ] {
        let error = with(task, goals).unwrap_err();
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn weights_that_stay_as_they_are_have_scales_for_every_processor() {
    let safe = |stages: &str| {
        let recipe = parse(&format!("{HEAD}[[stages]]\nkind = \"quantize\"\n{stages}"), &[]).unwrap();
        let loaded = Loaded { recipe, text: String::new(), folder: PathBuf::new(), overrides: vec![] };
        loaded.with_files(None).unwrap().recipe.stages[0].get::<QuantizeStage>().unwrap().processor_safe
    };
    let deploy = "[[stages]]\nkind = \"deploy\"\n";
    assert_eq!(safe(deploy), Some(true));
    assert_eq!(safe(&format!("processor_safe = false\n{deploy}")), Some(false));
    for other in ["epochs = 1\n", "batch_norm = \"keep\"\n", "[[stages]]\nkind = \"finetune\"\nepochs = 1\n"] {
        assert_eq!(safe(&format!("{other}{deploy}")), None, "{other}");
    }
    assert_eq!(safe(&format!("{deploy}target = \"integer_only\"\n")), None);
}
