//! The command line.
use crate::known::{self, Known};
use crate::values::{shape, share, sides, size};
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use espalier::data::Size;
use espalier::pipeline::actions::TryBudget;
use espalier::pipeline::recipe::ByteSize;
use std::path::PathBuf;

/// Train, quantize, prune, distil, fine-tune and deploy ONNX networks: one graph, one recipe.
#[derive(Parser, Debug)]
#[command(
    name = "espalier",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 done, 1 input, recipe or model at fault, 2 usage, 3 a goal was missed, 70 internal error, 130 stopped by Ctrl-C."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print the result as JSON (one versioned envelope for all commands)
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print neither progress nor notes
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Print more detail: each operator that stays float, with the reason
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub(crate) verbose: bool,
    /// Device to run on: cpu, gpu (the fastest) or gpu:N (see: espalier list devices)
    #[arg(long, global = true, value_name = "NAME", default_value = "cpu")]
    pub(crate) device: String,
    /// Another folder that may hold a model's external data (repeat for several)
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) allow_external: Vec<PathBuf>,
    /// Limit on the memory of all tensors, such as "8 GB"; what needs more is refused [default: four fifths of the machine's]
    #[arg(long, global = true, value_name = "SIZE")]
    pub(crate) memory_limit: Option<ByteSize>,
    /// When to use colour (NO_COLOR is obeyed)
    #[arg(long, global = true, default_value = "auto")]
    pub(crate) color: Color,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run a recipe; repeat the command to resume a run that was stopped
    Run(Run),
    /// Write a recipe for a model and its data, with the reason for each guess
    Init(Init),
    /// Quantize a model to 8 bits (writes a recipe and runs it)
    Quantize(Quantize),
    /// Prune a model and train the weights that are left (writes a recipe and runs it)
    Prune(Prune),
    /// Distil a model into a smaller one (writes a recipe and runs it)
    Distill(Distill),
    /// List finished runs, or show how two differ
    #[command(subcommand)]
    Runs(Runs),
    /// Find ONNX Runtime, or fetch it
    #[command(subcommand)]
    Runtime(RuntimeCommand),
    /// Rewrite a model: clean it up, raise its operator set, convert it to float32
    Convert(Convert),
    /// Pack a model into a smaller archive, losslessly
    Pack(Pack),
    /// Unpack an archive that pack wrote
    Unpack(Unpack),
    /// Run a model on arrays from an npz file
    Execute(Execute),
    /// Show operators, shapes, parameters, MACs and annotations
    Inspect(Inspect),
    /// Score a model on a data set with the metrics of its task
    Evaluate(Evaluate),
    /// Compare two models value by value on the same inputs
    Compare(Compare),
    /// Measure what each layer alone costs at each width, or with --prune at each sparsity
    Sensitivity(Sensitivity),
    /// Say why a quantized network is worse than the float one, what to try, and try it
    Diagnose(Diagnose),
    /// Time a training step or an inference, on random inputs
    #[command(subcommand)]
    Bench(Bench),
    /// Write a network of the zoo with random weights
    New(New),
    /// Show a run's summary and write its report.html again
    Report(Report),
    /// List stages, techniques, architectures, operators, runtimes or devices
    List(List),
    /// Explain a section of recipes, a stage, a technique, an architecture, an operator, a runtime or a device
    Explain(Explain),
    /// Print the JSON schema of recipes
    Schema,
    /// Print a shell's completion script
    Completions(Completions),
}

impl Command {
    /// The subcommand's name on the command line, such as `run`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Command::Run(_) => "run",
            Command::Init(_) => "init",
            Command::Quantize(_) => "quantize",
            Command::Prune(_) => "prune",
            Command::Distill(_) => "distill",
            Command::Runs(_) => "runs",
            Command::Runtime(_) => "runtime",
            Command::Convert(_) => "convert",
            Command::Pack(_) => "pack",
            Command::Unpack(_) => "unpack",
            Command::Execute(_) => "execute",
            Command::Inspect(_) => "inspect",
            Command::Evaluate(_) => "evaluate",
            Command::Compare(_) => "compare",
            Command::Sensitivity(_) => "sensitivity",
            Command::Diagnose(_) => "diagnose",
            Command::Bench(_) => "bench",
            Command::New(_) => "new",
            Command::Report(_) => "report",
            Command::List(_) => "list",
            Command::Explain(_) => "explain",
            Command::Schema => "schema",
            Command::Completions(_) => "completions",
        }
    }
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Run {
    /// The recipe (TOML)
    pub(crate) recipe: PathBuf,
    /// The run's folder [default: runs/NAME]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// Folder to look in first for the recipe's data sets and files
    #[arg(long, value_name = "DIR")]
    pub(crate) data_root: Option<PathBuf>,
    /// Change a setting of the recipe, stages by name: stages.prune.sparsity=0.7
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Print the plan with estimated time and memory, and run nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Write report.html during training too, as a page that reloads itself
    #[arg(long)]
    pub(crate) watch: bool,
    /// Older name of --output
    #[arg(long, value_name = "DIR", hide = true, conflicts_with = "output")]
    pub(crate) out: Option<PathBuf>,
    /// Older name of --data-root
    #[arg(long, value_name = "DIR", hide = true, conflicts_with = "data_root")]
    pub(crate) data: Option<PathBuf>,
}

/// A model and its data.
#[derive(ClapArgs, Debug)]
pub(crate) struct Task {
    /// The model (ONNX)
    pub(crate) model: PathBuf,
    /// The data set: a folder or file
    #[arg(long, value_name = "PATH")]
    pub(crate) data: PathBuf,
    /// Samples to measure the result on [default: the data set's test split]
    #[arg(long, value_name = "PATH")]
    pub(crate) test: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) preprocess: Preprocessing,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Init {
    #[command(flatten)]
    pub(crate) task: Task,
    /// The recipe to write [default: the model's name with .toml, in this folder]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// Arguments that `quantize`, `prune` and `distill` share.
#[derive(ClapArgs, Debug)]
pub(crate) struct Short {
    #[command(flatten)]
    pub(crate) task: Task,
    /// The deployed file to write
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// The run's folder, with the recipe, every stage and the report [default: runs/NAME-COMMAND]
    #[arg(long, value_name = "DIR")]
    pub(crate) run: Option<PathBuf>,
    /// Change a setting of the recipe: stages.quantize.calibration.images=128
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Quantize {
    #[command(flatten)]
    pub(crate) short: Short,
    /// Training epochs with the quantizers active, after calibration
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) epochs: u64,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Prune {
    #[command(flatten)]
    pub(crate) short: Short,
    /// Share of the weights that become zero, 0..1
    #[arg(long, value_name = "X", default_value_t = 0.5, value_parser = share)]
    pub(crate) sparsity: f64,
    /// Instead, remove whole channels until this share of the multiply-accumulates is gone, 0..1
    #[arg(long, value_name = "X", conflicts_with = "sparsity", value_parser = share)]
    pub(crate) macs: Option<f64>,
    /// Instead, remove whole channels until a run in ONNX Runtime on this machine takes this share less time, 0..1
    #[arg(long, value_name = "X", conflicts_with_all = ["sparsity", "macs"], value_parser = share)]
    pub(crate) latency: Option<f64>,
    /// Instead, remove whole channels until the deployed file is at most this large, such as "90 kB"
    #[arg(long, value_name = "SIZE", conflicts_with_all = ["sparsity", "macs", "latency"])]
    pub(crate) file_size: Option<ByteSize>,
    /// Training epochs after pruning
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) epochs: u64,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Distill {
    #[command(flatten)]
    pub(crate) short: Short,
    /// The student: an architecture (see: espalier list architectures) or an ONNX file
    #[arg(long, value_name = "ARCH|FILE", value_parser = Known(known::architectures), hide_possible_values = true)]
    pub(crate) student: String,
    /// Factor on the channels of the architecture's hidden layers
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub(crate) width: f64,
    /// Training epochs
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) epochs: u64,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Runs {
    /// List the runs in a folder, the latest first
    List {
        /// The folder that holds the runs' folders
        #[arg(default_value = "runs")]
        folder: PathBuf,
    },
    /// Show how two runs differ: recipe, stages, goals
    Diff {
        /// A run's folder, or its run.json
        a: PathBuf,
        /// Another run's folder, or its run.json
        b: PathBuf,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum RuntimeCommand {
    /// Print which ONNX Runtime is found, and where
    Find,
    /// Fetch ONNX Runtime with pip and print its path
    Fetch {
        /// Folder to put the library into [default: a folder of the user that Espalier searches]
        #[arg(short, long, value_name = "DIR")]
        output: Option<PathBuf>,
    },
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Convert {
    /// The model
    pub(crate) model: PathBuf,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Fold constants and BatchNormalization, remove identities and dead nodes
    #[arg(long)]
    pub(crate) clean: bool,
    /// Raise the model's operator set (opset) to this version
    #[arg(long, value_name = "N")]
    pub(crate) opset: Option<i64>,
    /// Convert float16, bfloat16 and double tensors to float32, inputs and outputs too
    #[arg(long)]
    pub(crate) float32: bool,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Pack {
    /// The model
    pub(crate) model: PathBuf,
    /// The archive to write [default: MODEL.espk]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Unpack {
    /// The archive
    pub(crate) archive: PathBuf,
    /// The model to write [default: the archive's name without .espk]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Execute {
    /// The model
    pub(crate) model: PathBuf,
    /// npz file with one array for each of the model's inputs, by name
    #[arg(long, value_name = "FILE")]
    pub(crate) input: PathBuf,
    /// npz file to write the outputs to
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) runtime: Runtime,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Runtime {
    /// Runtime: reference, onnxruntime or rten
    #[arg(long, value_name = "NAME", default_value = "reference", value_parser = Known(known::runtimes), hide_possible_values = true)]
    pub(crate) runtime: String,
    /// Turn the runtime's graph optimizations off: literal arithmetic
    #[arg(long)]
    pub(crate) literal: bool,
    /// Number of threads of the runtime
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) threads: usize,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Inspect {
    /// The model
    pub(crate) model: PathBuf,
    /// Shape of an input, to count MACs with: NAME=1,3,224,224
    #[arg(long, value_name = "NAME=SHAPE", value_parser = shape)]
    pub(crate) shape: Vec<(String, Vec<usize>)>,
    /// List which channels are removed together (stage prune_channels), and which layers keep all of theirs and why
    #[arg(long)]
    pub(crate) groups: bool,
}

/// Which rows of a data set, and how an image becomes an input.
#[derive(ClapArgs, Debug)]
pub(crate) struct Samples {
    /// The data set's split
    #[arg(long, default_value = "test")]
    pub(crate) split: String,
    /// Rows in a batch [default: 64; 8 in compare, which keeps all values of both models]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch: Option<u32>,
    /// Use N rows only, evenly spaced (the first N if a state is carried from row to row)
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// The network's task [default: the model's own, else classification]
    #[arg(long, value_name = "TASK", value_parser = Known(known::tasks), hide_possible_values = true)]
    pub(crate) task: Option<String>,
    /// Array of the npz file with the values to predict, for a regression [default: y, target or targets]
    #[arg(long, value_name = "ARRAY", requires = "task")]
    pub(crate) target: Option<String>,
    #[command(flatten)]
    pub(crate) preprocess: Preprocessing,
}

/// How an image becomes an input. What is not given is taken from the model's metadata.
#[derive(ClapArgs, Debug)]
pub(crate) struct Preprocessing {
    /// Factor on pixels [default: the model's own, else 1/255]; this and the following options each replace one setting
    #[arg(long, value_name = "X")]
    pub(crate) scale: Option<f64>,
    /// Mean that is subtracted from each channel: 0.485,0.456,0.406
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) mean: Vec<f64>,
    /// Standard deviation that each channel is divided by: 0.229,0.224,0.225
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) std: Vec<f64>,
    /// Resize images: the shorter side, or HEIGHT,WIDTH
    #[arg(long, value_name = "N", value_parser = size)]
    pub(crate) size: Option<Size>,
    /// Crop the centre of images: HEIGHT,WIDTH, or one number for both
    #[arg(long, value_name = "N", value_parser = sides)]
    pub(crate) crop: Option<[usize; 2]>,
    /// Convert images to grey (1) or to RGB (3)
    #[arg(long, value_name = "N")]
    pub(crate) channels: Option<usize>,
    /// Order of the input's axes: channels first or last
    #[arg(long, value_name = "ORDER")]
    pub(crate) layout: Option<Axes>,
    /// Apply scale, mean and std to arrays of floats (npz) too
    #[arg(long)]
    pub(crate) arrays: bool,
}

/// Order of an image input's axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Axes {
    Nchw,
    Nhwc,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Evaluate {
    /// The model
    pub(crate) model: PathBuf,
    /// The data set: a folder or file
    #[arg(long, value_name = "PATH")]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) samples: Samples,
    #[command(flatten)]
    pub(crate) runtime: Runtime,
    /// Compute a quantized file as a processor does: vnni, avx2 or neon on integers, or literal (the reference interpreter simulates it)
    #[arg(long, value_name = "NAME", conflicts_with_all = ["runtime", "literal"], value_parser = Known(known::arithmetics), hide_possible_values = true)]
    pub(crate) arithmetic: Option<String>,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Compare {
    /// The reference model
    pub(crate) a: PathBuf,
    /// The model to compare with the reference
    pub(crate) b: PathBuf,
    /// Data set to compare the models on: a folder or file
    #[arg(long, value_name = "PATH", conflicts_with = "input")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) samples: Samples,
    /// npz file with the inputs [default: seeded noise, unless --data is given]
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Shape of an input: NAME=1,3,224,224
    #[arg(long, value_name = "NAME=SHAPE", value_parser = shape)]
    pub(crate) shape: Vec<(String, Vec<usize>)>,
    /// Seed of the noise
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Sensitivity {
    /// A recipe (.toml) with a quantize stage (with --prune: a prune stage), or a model (with --data)
    #[arg(value_name = "RECIPE|MODEL")]
    pub(crate) of: PathBuf,
    /// Prune each layer alone, by the prune stage's criterion and granularity, in place of quantizing it
    #[arg(long)]
    pub(crate) prune: bool,
    /// With --prune: sparsities to measure [default: those of the stage's scope, 0.3,0.5,0.7,0.8,0.9]
    #[arg(long, value_name = "LIST", value_delimiter = ',', requires = "prune")]
    pub(crate) sparsities: Vec<f64>,
    /// For a model: its data set, a folder or file
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// For a recipe: the network to measure, in place of the one it begins with
    #[arg(long, value_name = "FILE")]
    pub(crate) model: Option<PathBuf>,
    /// Name of the recipe's quantize or prune stage [default: the first one]
    #[arg(long, value_name = "NAME")]
    pub(crate) stage: Option<String>,
    /// Widths to measure, in bits [default: search.widths of the stage, 2,3,4,8]
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with = "prune")]
    pub(crate) widths: Vec<u32>,
    /// Number of samples to measure on: validation samples, else training samples; never test samples [default: that of search or scope, 256]
    #[arg(long, value_name = "N")]
    pub(crate) samples: Option<usize>,
    /// File to write: .json (search.sensitivity or scope.table in a recipe reads it), .csv or .html with charts (repeat for several)
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Vec<PathBuf>,
    /// Folder to look in first for the recipe's data sets and files
    #[arg(long, value_name = "DIR")]
    pub(crate) data_root: Option<PathBuf>,
    /// Change a setting of the recipe: stages.quantize.calibration.images=128
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    #[command(flatten)]
    pub(crate) preprocess: Preprocessing,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Diagnose {
    /// A run's folder, a recipe (.toml) with a quantize stage, or a model (with --data)
    #[arg(value_name = "RUN|RECIPE|MODEL")]
    pub(crate) of: PathBuf,
    /// Try the suggestions without training, and keep those that are measured better
    #[arg(long)]
    pub(crate) fix: bool,
    /// How much to try: a time, after which no trial begins, or a number of trials
    #[arg(long, value_name = "10min|N", default_value = "10min", requires = "fix")]
    pub(crate) budget: TryBudget,
    /// For a model: its data set, a folder or file
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// For a recipe: the network before the quantize stage, in place of the one that the recipe begins with
    #[arg(long, value_name = "FILE")]
    pub(crate) model: Option<PathBuf>,
    /// Name of the quantize stage [default: the first one]
    #[arg(long, value_name = "NAME")]
    pub(crate) stage: Option<String>,
    /// Number of samples to measure on: validation samples, else training samples; never test samples [default: search.samples, 256]
    #[arg(long, value_name = "N")]
    pub(crate) samples: Option<usize>,
    /// File to write: .json, .csv (the layers), with --fix .toml (the recipe with what is kept; repeat for several)
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Vec<PathBuf>,
    /// Folder to look in first for the recipe's data sets and files [default for a run: that of its command line]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_root: Option<PathBuf>,
    /// Change a setting of the recipe: stages.quantize.weights.bits=4
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    #[command(flatten)]
    pub(crate) preprocess: Preprocessing,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Bench {
    /// Time training steps: forward, loss, backward, update
    Train(BenchTrain),
    /// Time inferences in a runtime
    Infer(BenchInfer),
    /// Measure the machine's peak arithmetic and memory bandwidth
    Machine,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct BenchTrain {
    /// The model
    pub(crate) model: PathBuf,
    /// Samples in a step, if the model's batch dimension is open
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch: u32,
    /// Steps to time, after a few steps of warm-up
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) steps: u32,
    /// Quantize to 8 bits first and train through the quantizers
    #[arg(long)]
    pub(crate) qat: bool,
    /// Share of the weights that a mask holds at zero, 0..1
    #[arg(long, value_name = "X")]
    pub(crate) sparsity: Option<f64>,
    /// Distil from this model in each step
    #[arg(long, value_name = "MODEL")]
    pub(crate) teacher: Option<PathBuf>,
    /// Memory budget of a step, such as "2 GB": activations are recomputed to stay below it (--memory-limit refuses instead)
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<ByteSize>,
    /// Shape of an input: NAME=1,3,224,224
    #[arg(long, value_name = "NAME=SHAPE", value_parser = shape)]
    pub(crate) shape: Vec<(String, Vec<usize>)>,
    /// npz file with arrays by input name; inputs that it lacks are random
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct BenchInfer {
    /// The model
    pub(crate) model: PathBuf,
    /// Samples in a run, if the model's batch dimension is open
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch: u32,
    /// Runs to time; no run starts after ten seconds
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// Shape of an input: NAME=1,3,224,224
    #[arg(long, value_name = "NAME=SHAPE", value_parser = shape)]
    pub(crate) shape: Vec<(String, Vec<usize>)>,
    /// npz file with arrays by input name; inputs that it lacks are random
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) runtime: Runtime,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct New {
    /// The architecture (see: espalier list architectures)
    #[arg(value_parser = Known(known::architectures), hide_possible_values = true)]
    pub(crate) arch: String,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Factor on the channels of every hidden layer
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub(crate) width: f64,
    /// Number of classes
    #[arg(long, value_name = "N")]
    pub(crate) classes: Option<usize>,
    /// Shape of one input: channels,height,width
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) input: Option<Vec<usize>>,
    /// Seed of the random weights
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Report {
    /// The run's folder, or its run.json
    pub(crate) run: PathBuf,
    /// Print Markdown
    #[arg(long)]
    pub(crate) markdown: bool,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct List {
    /// What to list
    pub(crate) topic: Topic,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Topic {
    Stages,
    Techniques,
    Architectures,
    Operators,
    Runtimes,
    Devices,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Explain {
    /// A section of recipes (data, model, goals, preprocess, calibration, schedule, ...), a stage, a technique, an architecture,
    /// an operator, a runtime or a device
    #[arg(value_parser = Known(known::names), hide_possible_values = true)]
    pub(crate) name: String,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Args::command().debug_assert();
    }
}
