//! `--set KEY=VALUE`: changes to a recipe without editing its file.
use super::{Recipe, RecipeError, Stage, parse};
use technique::did_you_mean;
use toml::{Table, Value};

/// The recipe with each override applied in order.
pub(super) fn apply(recipe: &Recipe, overrides: &[String]) -> Result<Recipe, RecipeError> {
    let mut recipe = recipe.clone();
    for text in overrides {
        let at = |e: RecipeError| e.in_override(text);
        let mut table = Table::try_from(&recipe).map_err(|e| at(RecipeError::new(e.to_string())))?;
        let (key, value) = split(text).map_err(at)?;
        set(&mut table, &recipe, &key, value).map_err(at)?;
        let toml = toml::to_string(&table).map_err(|e| at(RecipeError::new(e.to_string())))?;
        recipe = parse::parse(&toml).map_err(at)?;
    }
    Ok(recipe)
}

/// The key's steps and the value: TOML if it parses as such, else a plain string.
fn split(text: &str) -> Result<(Vec<String>, Value), RecipeError> {
    let Some((key, value)) = text.split_once('=') else {
        return Err(RecipeError::new("is not KEY=VALUE").hint(Some("for example --set stages.prune.sparsity=0.7".into())));
    };
    let steps: Vec<String> = key.trim().split('.').map(str::to_string).collect();
    if steps.iter().any(String::is_empty) {
        return Err(RecipeError::new("the key has an empty part"));
    }
    let value = value.trim();
    if value.parse::<i128>().is_ok_and(|n| i64::try_from(n).is_err()) {
        return Err(RecipeError::new(format!("{value} is not a whole number within {}..{}", i64::MIN, i64::MAX)));
    }
    let parsed = format!("value = {value}").parse::<Table>().ok().and_then(|mut t| t.remove("value"));
    Ok((steps, parsed.unwrap_or_else(|| Value::String(value.to_string()))))
}

fn set(root: &mut Table, recipe: &Recipe, steps: &[String], value: Value) -> Result<(), RecipeError> {
    let (table, path) = match steps {
        [first, stage, path @ ..] if first == "stages" && !path.is_empty() => {
            let table = stage_table(root, recipe, stage)?;
            if let [key, _, ..] = path
                && key == "optimizer"
                && !table.contains_key(key)
                && let Some((optimizer, _)) = recipe.stages.iter().position(|s| s.name() == stage).and_then(|i| recipe.optimizer(i))
            {
                // A default that is not written there is changed in one key.
                table.insert(key.clone(), Value::try_from(optimizer).map_err(|e| RecipeError::new(e.to_string()))?);
            }
            (table, path)
        }
        [first, ..] if first == "stages" => {
            return Err(RecipeError::new("a stage and one of its keys are needed, as in stages.prune.sparsity"));
        }
        path => (root, path),
    };
    let mut table = table;
    let Some((last, folders)) = path.split_last() else { return Err(RecipeError::new("the key is empty")) };
    for step in folders {
        let entry = table.entry(step.as_str()).or_insert_with(|| Value::Table(Table::new()));
        // A technique given by its name alone becomes a table, to take a setting.
        if let Value::String(kind) = entry {
            *entry = Value::Table(Table::from_iter([("kind".to_string(), Value::String(std::mem::take(kind)))]));
        }
        table = match entry {
            Value::Table(inner) => inner,
            _ => return Err(RecipeError::new(format!("'{step}' has no keys of its own"))),
        };
    }
    table.insert(last.clone(), value);
    Ok(())
}

fn stage_table<'a>(root: &'a mut Table, recipe: &Recipe, name: &str) -> Result<&'a mut Table, RecipeError> {
    let names: Vec<&str> = recipe.stages.iter().map(Stage::name).collect();
    let position = names.iter().position(|n| *n == name);
    let found = position.and_then(|i| root.get_mut("stages")?.as_array_mut()?.get_mut(i)?.as_table_mut());
    found.ok_or_else(|| {
        let list = format!("the stages are {}", names.join(", "));
        let hint = did_you_mean(name, names.iter().copied()).map_or(list, |k| format!("did you mean '{k}'?"));
        RecipeError::new(format!("no stage is named '{name}'")).hint(Some(hint))
    })
}
