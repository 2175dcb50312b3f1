//! Bad inputs, through the program itself: each ends with its exit code and a message that names what is wrong, and
//! leaves no result behind. `docs/bad-inputs.md` is the table of them.
//!
//! `cargo test -p espalier-cli --test bad_inputs -- --nocapture` prints what was seen.
mod support;

#[path = "bad_inputs/data.rs"]
mod data;
#[path = "bad_inputs/files.rs"]
mod files;
#[path = "bad_inputs/models.rs"]
mod models;
#[path = "bad_inputs/recipes.rs"]
mod recipes;
#[path = "bad_inputs/sizes.rs"]
mod sizes;
#[path = "bad_inputs/time.rs"]
mod time;
