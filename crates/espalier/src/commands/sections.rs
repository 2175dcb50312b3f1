//! The sections of a recipe, as `explain` shows them: from the schema, so that no key is missed.
use pipeline::recipe::schema;
use serde_json::Value;

/// A section's name, its type in the schema, where it stands, and an example.
struct Section {
    name: &'static str,
    ty: &'static str,
    place: &'static str,
    example: &'static str,
}

const SECTIONS: [Section; 13] = [
    Section {
        name: "data",
        ty: "DataSettings",
        place: "[data] of a recipe",
        example: "[data]\ntrain = \"photos\"        # photos/train/CLASS/*.jpg\ntest = \"photos\"         # photos/test/CLASS/*.jpg\nvalidation = 0.1\n",
    },
    Section {
        name: "model",
        ty: "ModelSource",
        place: "[model] of a recipe, or model = { ... } in a train stage",
        example: "[model]\nfile = \"model.onnx\"\n",
    },
    Section {
        name: "goals",
        ty: "Goals",
        place: "[goals] of a recipe",
        example: "[goals]\nmax_accuracy_drop = 1.0\nmax_file_size = \"500 kB\"\n",
    },
    Section {
        name: "preprocess",
        ty: "Preprocess",
        place: "[data.preprocess] of a recipe",
        example: "[data.preprocess]\nsize = 256\ncrop = [224, 224]\nscale = 0.00392156862745098\nmean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]\n",
    },
    Section {
        name: "inputs",
        ty: "InputRule",
        place: "NAME = { ... } below [data.inputs] of a recipe, NAME an input of the model (see: espalier inspect MODEL)",
        example: "[data.inputs]\nsr = { value = 16000 }        # a number that the data do not hold\nstate = { carried = \"stateN\" } # an output, fed back from row to row\n",
    },
    Section {
        name: "augment",
        ty: "Augment",
        place: "[data.augment] of a recipe",
        example: "[data.augment]\ncrop_padding = 4\nflip = true\n",
    },
    Section {
        name: "calibration",
        ty: "CalibrationSettings",
        place: "calibration = { ... } in a quantize stage",
        example: "[[stages]]\nkind = \"quantize\"\ncalibration = { observer = \"auto\", images = 512 }\n",
    },
    Section {
        name: "weights",
        ty: "encoding",
        place: "weights = { ... } in a quantize stage",
        example: "[[stages]]\nkind = \"quantize\"\nweights = { bits = 8, granularity = \"channel\" }\n",
    },
    Section {
        name: "activations",
        ty: "Activations",
        place: "activations = { ... } in a quantize stage",
        example: "[[stages]]\nkind = \"quantize\"\nactivations = { bits = 8 }\n",
    },
    Section {
        name: "search",
        ty: "SearchSettings",
        place: "search = { ... } in a quantize stage with a budget",
        example: "[[stages]]\nkind = \"quantize\"\nbudget = \"3 bits\"\nsearch = { widths = [2, 3, 4, 8], samples = 512 }\n",
    },
    Section {
        name: "optimizer",
        ty: "optimizer",
        place: "optimizer = { ... } in a stage that trains; without one, adamw with lr = 1e-4 where the weights are trained already, \
                sgd with lr = 0.05 where they are random",
        example: "[[stages]]\nkind = \"finetune\"\noptimizer = { kind = \"adamw\", lr = 3e-4 }\n",
    },
    Section {
        name: "schedule",
        ty: "schedule",
        place: "schedule = { ... } in a stage that trains",
        example: "[[stages]]\nkind = \"train\"\nschedule = { kind = \"cosine\", warm_up = 0.1 }\n",
    },
    Section {
        name: "student",
        ty: "Student",
        place: "student = { ... } in a distill stage",
        example: "[[stages]]\nkind = \"distill\"\nteacher = \"model.onnx\"\nstudent = { arch = \"resnet8\" }\n",
    },
];

/// Names of the sections.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    SECTIONS.iter().map(|s| s.name)
}

/// The explanation of a section: its keys with their defaults, and an example.
pub(super) fn explain(name: &str) -> Option<String> {
    let section = SECTIONS.iter().find(|s| s.name == name)?;
    let schema = schema();
    let ty = &schema["$defs"][section.ty];
    let mut out = format!("{name}: {}\n\nStands in {}.\n\n", text(ty), section.place);
    for choice in ty["oneOf"].as_array().into_iter().flatten().filter(|c| c["properties"]["kind"].is_object()) {
        let kind = choice["properties"]["kind"]["const"].as_str().unwrap_or_default();
        out += &format!("kind = \"{kind}\": {}\n{}\n", text(choice), keys(choice, &schema));
    }
    out += &keys(ty, &schema);
    out += &format!("\nIn a recipe:\n\n{}", section.example);
    Some(out)
}

fn text(v: &Value) -> String {
    v["description"].as_str().unwrap_or_default().replace('\n', " ")
}

/// Each key with its sentence, its named values, and its default.
fn keys(ty: &Value, schema: &Value) -> String {
    let list: Vec<(&String, &Value)> = ty["properties"].as_object().into_iter().flatten().filter(|(key, _)| *key != "kind").collect();
    let width = list.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    let line = |(key, v): &(&String, &Value)| {
        let default = v.get("default").filter(|d| !d.is_null()).map_or(String::new(), |d| format!(" (default: {d})"));
        format!("  {key:width$}  {}{}{default}\n", text(v), values(v, schema))
    };
    list.iter().map(line).collect()
}

/// The named values of a key: ` (a, b or c)`.
fn values(v: &Value, schema: &Value) -> String {
    let Some(name) = v["$ref"].as_str().and_then(|r| r.strip_prefix("#/$defs/")) else { return String::new() };
    let choices = schema["$defs"][name]["oneOf"].as_array();
    let names: Vec<&str> = choices.into_iter().flatten().filter_map(|c| c["const"].as_str()).collect();
    if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_section_is_explained_with_its_keys_and_an_example_that_is_read() {
        let head = "name = \"x\"\n";
        for section in &SECTIONS {
            let told = explain(section.name).unwrap();
            assert!(!schema()["$defs"][section.ty].is_null(), "{}", section.name);
            let (keys, example) = told.split_once("\nIn a recipe:\n\n").unwrap();
            assert!(keys.lines().count() > 3, "{told}");
            let has = |heading: &str| example.contains(heading);
            let data = if has("[data]") { "" } else { "[data]\ntrain = \"d\"\n" };
            let model = if has("[model]") { "" } else { "[model]\narch = \"mlp\"\n" };
            let stage = if has("[[stages]]") { "" } else { "[[stages]]\nkind = \"deploy\"\n" };
            let recipe = format!("{head}{data}{model}{example}{stage}");
            pipeline::recipe::parse(&recipe, &[]).unwrap_or_else(|e| panic!("{e}\n{recipe}"));
        }
        assert!(explain("calibration").unwrap().contains("auto"));
        assert!(explain("schedule").unwrap().contains("kind = \"cosine\""));
    }
}
