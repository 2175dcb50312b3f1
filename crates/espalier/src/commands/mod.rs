//! The program's subcommands as functions, one file each. A result serializes to JSON and displays as text.
mod bench;
mod compare;
mod convert;
mod device;
mod diagnose;
mod evaluate;
mod execute;
mod groups;
mod init;
mod inputs;
mod inspect;
mod list;
mod memory;
mod new;
mod observe;
mod pack;
mod plan;
mod preprocessing;
mod run;
mod runs;
mod runtime;
mod samples;
mod sections;
mod sensitivity;
mod subject;

pub use bench::{BenchOptions, InferBench, MachineBench, TrainBench, TrainBenchOptions, bench_infer, bench_machine, bench_train};
pub use compare::{CompareOn, Comparison, ValueDifference, compare};
pub use convert::{ConvertOptions, Converted, convert};
pub use device::select_device;
pub use diagnose::{DiagnoseOptions, Diagnosis, diagnose};
pub use evaluate::{EvaluateOptions, Evaluation, evaluate};
pub use execute::{Execution, execute};
pub use groups::{ChannelGroups, HeldLayer, channel_groups};
pub use init::{Cut, Purpose, Shortcut, Task, Written, init, shortcut};
pub use inputs::{example_inputs, random_inputs};
pub use inspect::{Inspection, Layer, Port, inspect};
pub use list::{Entry, Topic, explain, explainable, list};
pub use memory::limit_memory;
pub use new::{Created, NewOptions, new};
pub use pack::{ARCHIVE, Packed, Unpacked, pack, unpack};
pub use plan::{Plan, PlannedTime, plan};
pub use preprocessing::{PreprocessChanges, Preprocessing};
pub use run::{RunResult, report, run};
pub use runs::{Difference, RunSummary, diff_runs, list_runs};
pub use runtime::{FoundRuntime, fetch_runtime, find_runtime};
pub use samples::{SampleOptions, task_named, tasks};
pub use sensitivity::{Levels, SensitivityOptions, SensitivityTable, sensitivity};

pub(crate) use preprocessing::carried as carried_preprocessing;
pub(crate) use samples::loader;

/// Names of the runtimes that files can be executed in.
pub fn runtimes() -> impl Iterator<Item = &'static str> {
    deploy::runtime::all().iter().map(|entry| entry.name)
}
