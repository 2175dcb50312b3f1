//! The target of a row beside its inputs: a class, or numbers.
use crate::source::arrays::LABELS;
use std::collections::BTreeMap;
use tensor::{DType, Tensor};

/// What a task needs to know of each row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// Its class: one integer a row.
    #[default]
    Class,
    /// Numbers of any shape, the same in all rows; read from npz files.
    Values {
        /// The array's name; absent: the first that there is of `y`, `target`, `targets`, `label`, `labels`.
        array: Option<String>,
    },
}

/// Name of the target that [`Wanted::Values`] gives ([`crate::Targets::values`]).
pub const TARGET: &str = "target";

/// Names that an array of target values may have.
pub const TARGET_NAMES: [&str; 5] = ["y", TARGET, "targets", "label", "labels"];

/// Takes the array of target values out of a file's arrays, as f32, and drops class labels, which are no inputs.
///
/// # Errors
/// A sentence: which arrays there are, or why the array found cannot be used.
pub(crate) fn take_values(arrays: &mut BTreeMap<String, Tensor>, array: Option<&str>) -> Result<Tensor, String> {
    let name = match array {
        Some(name) => Some(name).filter(|name| arrays.contains_key(*name)),
        None => TARGET_NAMES.into_iter().find(|name| arrays.contains_key(*name)),
    };
    let Some((name, values)) = name.and_then(|name| Some((name, arrays.remove(name)?))) else {
        let there = arrays.keys().cloned().collect::<Vec<_>>().join(", ");
        let wanted =
            array.map_or_else(|| format!("no array of targets ({})", TARGET_NAMES.join(", ")), |name| format!("no array '{name}'"));
        return Err(format!("{wanted}; there are {there}: name the one to predict in the recipe, [task] target = \"NAME\""));
    };
    for label in LABELS {
        if arrays.get(label).is_some_and(|t| t.rank() == 1 && !t.dtype().is_float()) {
            arrays.remove(label);
        }
    }
    if values.rank() == 0 {
        return Err(format!("array '{name}': a target has one entry a row along its first axis, and this is a single number"));
    }
    if matches!(values.dtype(), DType::String | DType::Bool) {
        return Err(format!("array '{name}': element type {}, where numbers are needed", values.dtype()));
    }
    values.cast(DType::F32).map_err(|e| format!("array '{name}': {e}"))
}
