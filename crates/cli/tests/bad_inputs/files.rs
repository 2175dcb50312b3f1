//! Files that must not be lost: outputs are written where they were named, and never over an input or another's file.
use crate::support::{Folder, relu};
use espalier::graph::{Constant, Extra, Model, Node, Origin};
use espalier::onnx;
use espalier::tensor::Tensor;

/// `y = x + w`, w of 4 elements, all `value`, in the file `model.onnx.data` beside the model.
fn with_data(folder: &Folder, name: &str, value: f32) {
    let mut model = relu();
    let w = model.values.add_constant("w", Tensor::full(value, [4]).unwrap());
    let origin = Origin::External { location: "anywhere".into(), offset: 0, entries: vec![] };
    model.values[w].constant = Some(Constant { tensor: Tensor::full(value, [4]).unwrap(), origin, extra: Extra::default() });
    model.graph.constants.push(w);
    let (x, y) = (model.graph.inputs[0], model.graph.outputs[0]);
    model.graph.nodes = vec![Node::new("Add", "add", &[x, w], &[y])];
    std::fs::create_dir_all(folder.path(name)).unwrap();
    onnx::save(&model, &folder.path(name).join("model.onnx")).unwrap();
}

fn weight(model: &Model) -> f32 {
    let w = model.find("w").unwrap();
    model.values.tensor(w).unwrap().as_slice::<f32>().unwrap()[0]
}

#[test]
fn two_converts_into_one_folder_stay_apart() {
    let folder = Folder::new();
    with_data(&folder, "a", 1.0);
    with_data(&folder, "b", 2.0);
    std::fs::create_dir(folder.path("to")).unwrap();
    // Another model's data file under the name that both use.
    folder.write("to/model.onnx.data", "another's");
    for (from, to) in [("a", "to/from_a.onnx"), ("b", "to/from_b.onnx")] {
        let output = folder.espalier(&format!("convert {from}/model.onnx -o {to}"));
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let read = |name: &str| weight(&onnx::load(&folder.path(name)).unwrap());
    assert_eq!((read("to/from_a.onnx"), read("to/from_b.onnx")), (1.0, 2.0));
    assert_eq!(std::fs::read(folder.path("to/model.onnx.data")).unwrap(), b"another's");
    folder.fails("convert a/model.onnx -o to/model.onnx", 1, "to/model.onnx.data exists already and is not model.onnx's own");
    assert!(!folder.path("to/model.onnx").exists());
    folder.fails("convert a/model.onnx -o a/model.onnx.data", 1, "holds the model's own data");
    assert_eq!(read("a/model.onnx"), 1.0);
}

#[test]
fn an_output_that_is_an_input() {
    let folder = Folder::new();
    onnx::save(&relu(), &folder.path("relu.onnx")).unwrap();
    folder.arrays("in.npz", &[("x", Tensor::full(0f32, [1, 4]).unwrap())]);
    let before = ["relu.onnx", "in.npz"].map(|n| std::fs::read(folder.path(n)).unwrap());
    folder.fails("execute relu.onnx --input in.npz --output relu.onnx", 1, "this is an input and would be lost");
    folder.fails("execute relu.onnx --input in.npz --output ./in.npz", 1, "this is an input and would be lost");
    assert_eq!(["relu.onnx", "in.npz"].map(|n| std::fs::read(folder.path(n)).unwrap()), before);
}

const RECIPE: &str = r#"
name = "small"
[data]
train = "rows.npz"
test = "rows.npz"
[model]
file = "deploy.onnx"
[[stages]]
kind = "quantize"
[[stages]]
kind = "deploy"
latency_runs = 1
"#;

#[test]
fn a_run_into_a_folder_that_is_not_a_runs() {
    let folder = Folder::new();
    folder.write("r.toml", RECIPE);
    folder.write("deploy.onnx", "a user's model");
    folder.arrays("rows.npz", &[("x", Tensor::full(0u8, [4, 4]).unwrap()), ("y", Tensor::vector(vec![0i64, 1, 0, 1]))]);
    folder.fails("run r.toml --output .", 1, "is not a run's folder: it holds 'deploy.onnx'");
    assert_eq!(std::fs::read(folder.path("deploy.onnx")).unwrap(), b"a user's model");
    assert!(!folder.path("lock").exists() && !folder.path("store").exists());
    // A run's folder into which the model was put under the name of a result.
    folder.write("out/lock", "");
    std::fs::create_dir(folder.path("out/store")).unwrap();
    folder.write("out/deploy.onnx", "a user's model");
    folder.write("r.toml", RECIPE.replace("deploy.onnx", "out/deploy.onnx"));
    folder.fails("run r.toml --output out", 1, "is read by this run and would be written over");
    assert_eq!(std::fs::read(folder.path("out/deploy.onnx")).unwrap(), b"a user's model");
    // A data set that the run would add files to.
    folder.write("r.toml", RECIPE.replace("train = \"rows.npz\"", "train = \"images\""));
    std::fs::create_dir(folder.path("images")).unwrap();
    folder.fails("run r.toml --output images/out", 1, "lies inside the data set");
    assert!(!folder.path("images/out").exists());
}

#[test]
fn a_page_that_is_not_a_report() {
    let folder = Folder::new();
    folder.write("x/report.html", "<html>a user's</html>");
    folder.write("x/run.json", espalier::report::RunRecord { schema_version: 1, ..Default::default() }.to_json());
    folder.fails("report x", 1, "is not a report that Espalier wrote");
    assert_eq!(std::fs::read(folder.path("x/report.html")).unwrap(), b"<html>a user's</html>");
}

#[test]
fn external_data_outside_the_models_folder() {
    let folder = Folder::new();
    with_data(&folder, "a", 3.0);
    // Of one length: `model.onnx.data`, and the same file from a folder beside it.
    let moved = |to: &str| {
        let bytes = std::fs::read(folder.path("a/model.onnx")).unwrap();
        let at = bytes.windows(15).position(|w| w == b"model.onnx.data").unwrap();
        std::fs::write(folder.path("b/m.onnx"), [&bytes[..at], to.as_bytes(), &bytes[at + 15..]].concat()).unwrap();
    };
    folder.write("a/data.bin", std::fs::read(folder.path("a/model.onnx.data")).unwrap());
    std::fs::create_dir(folder.path("b")).unwrap();
    moved("../a//.data.bin");
    std::fs::rename(folder.path("a/data.bin"), folder.path("a/.data.bin")).unwrap();
    let refused = "leaves the model's folder: --allow-external PATH lets it lie below PATH";
    folder.fails("inspect b/m.onnx", 1, refused);
    folder.fails("inspect b/m.onnx --allow-external b", 1, refused);
    folder.fails("inspect b/m.onnx --allow-external nowhere", 1, "--allow-external nowhere: No such file");
    let output = folder.espalier("convert b/m.onnx -o c.onnx --allow-external a");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(weight(&onnx::load(&folder.path("c.onnx")).unwrap()), 3.0);
}

#[test]
fn names_that_control_a_terminal() {
    let folder = Folder::new();
    let hostile = "w\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m\u{202e}\nerror: forged";
    let mut model = relu();
    model.graph.nodes[0].name = hostile.into();
    model.metadata_set("note", hostile);
    for v in [model.graph.inputs[0], model.graph.outputs[0]] {
        model.values[v].name += hostile;
    }
    onnx::save(&model, &folder.path("h.onnx")).unwrap();
    folder.arrays("in.npz", &[("x", Tensor::full(0f32, [1, 4]).unwrap())]);
    let mut odd = model.clone();
    odd.graph.nodes[0].op_type = hostile.into();
    onnx::save(&odd, &folder.path("odd.onnx")).unwrap();
    for line in [
        "inspect h.onnx",
        "inspect h.onnx --json",
        "inspect odd.onnx",
        "inspect odd.onnx --json --color always",
        "execute h.onnx --input in.npz",
        "execute odd.onnx --input in.npz",
        "compare h.onnx odd.onnx",
        "compare h.onnx h.onnx",
    ] {
        let output = folder.espalier(line);
        for said in [output.stdout, output.stderr] {
            let said = String::from_utf8(said).unwrap();
            let bad = said.chars().find(|c| c.is_control() && *c != '\n' && *c != '\t' || *c == '\u{202e}');
            assert!(bad.is_none(), "espalier {line}: {bad:?} in {said:?}");
        }
    }
}
