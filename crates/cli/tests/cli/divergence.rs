//! A diverging training gives a warning with remedies.
use crate::program::{digits, run};

#[test]
fn a_rate_that_is_too_high_is_named_with_its_stage() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_str().expect("a UTF-8 path").to_string();
    let recipe = "name = \"t\"\n[data]\ntrain = \"digits\"\npreprocess = { scale = 0.0625 }\n[model]\narch = \"resnet8\"\ninput = [1, 8, 8]\n\
                  [[stages]]\nkind = \"train\"\nepochs = 4\noptimizer = { kind = \"sgd\", lr = 0.05 }\n\
                  [[stages]]\nkind = \"quantize\"\nepochs = 2\noptimizer = { kind = \"sgd\", lr = 3.0 }\n";
    std::fs::write(path("recipe.toml"), recipe).expect("a recipe");
    let data = digits();
    let arguments = ["run", &path("recipe.toml"), "--output", &path("out"), "--data-root", data.to_str().expect("a UTF-8 path")];
    let (code, stdout, stderr) = run(&arguments);
    let said = format!("{stdout}{stderr}");
    assert!(said.contains("quantize") && said.contains("the training diverges"), "{code}: {said}");
    assert!(said.contains("quantizing folds it") && said.contains("adamw"), "{said}");
}
