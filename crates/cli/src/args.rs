//! The command line.
use crate::known::{self, Known};
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use espalier::data::Size;
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
    /// No progress, no notes
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// More detail: each operator that stays float, with the reason
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub(crate) verbose: bool,
    /// Device to run on: cpu, gpu (the fastest) or gpu:N (see: espalier list devices)
    #[arg(long, global = true, value_name = "NAME", default_value = "cpu")]
    pub(crate) device: String,
    /// Where a model's external data may lie beside its own folder (more than once for several)
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) allow_external: Vec<PathBuf>,
    /// Memory that all tensors may take, such as "8 GB"; what needs more is refused [default: four fifths of the machine's]
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
    /// Run a recipe; the same command again goes on where it was stopped
    Run(Run),
    /// Write a recipe for a model and its data, with the reason for each guess
    Init(Init),
    /// Quantize a model to 8 bits: the recipe for it, run at once
    Quantize(Quantize),
    /// Prune a model and train what is left: the recipe for it, run at once
    Prune(Prune),
    /// Distil a model into a smaller one: the recipe for it, run at once
    Distill(Distill),
    /// List finished runs, or show how two differ
    #[command(subcommand)]
    Runs(Runs),
    /// Find ONNX Runtime, or fetch it
    #[command(subcommand)]
    Runtime(RuntimeCommand),
    /// Import, clean up, raise the operator set, export
    Convert(Convert),
    /// Run a model on arrays
    Execute(Execute),
    /// Show operators, shapes, parameters, MACs and annotations
    Inspect(Inspect),
    /// Score a model on a data set, by the figures of its task
    Evaluate(Evaluate),
    /// Compare two models value by value on the same inputs
    Compare(Compare),
    /// Time a training step or an inference, on random inputs
    #[command(subcommand)]
    Bench(Bench),
    /// Write a freshly initialised network of the zoo
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
    /// Its name on the command line.
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
            Command::Execute(_) => "execute",
            Command::Inspect(_) => "inspect",
            Command::Evaluate(_) => "evaluate",
            Command::Compare(_) => "compare",
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
    /// A folder in which the recipe's data sets and files are looked for first
    #[arg(long, value_name = "DIR")]
    pub(crate) data_root: Option<PathBuf>,
    /// Change a setting, stages by name: stages.prune.sparsity=0.7
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Print what the run would do, with estimated time and memory, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Write report.html while it trains too, as a page that loads itself again
    #[arg(long)]
    pub(crate) watch: bool,
    /// The spelling of --output in earlier releases
    #[arg(long, value_name = "DIR", hide = true, conflicts_with = "output")]
    pub(crate) out: Option<PathBuf>,
    /// The spelling of --data-root in earlier releases
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
    /// The samples that the result is measured on [default: the data set's test split]
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

/// What a command that stands for a recipe has in common with others.
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
    /// Passes over the training data with the quantizers active, after calibration
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) epochs: u64,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Prune {
    #[command(flatten)]
    pub(crate) short: Short,
    /// Share of the weights that become zero, 0..1
    #[arg(long, value_name = "X", default_value_t = 0.5)]
    pub(crate) sparsity: f64,
    /// Passes over the training data with what is left
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
    /// Multiplies the channels of the architecture's hidden layers
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub(crate) width: f64,
    /// Passes over the training data
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
        /// Another
        b: PathBuf,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum RuntimeCommand {
    /// Say which ONNX Runtime is found, and where
    Find,
    /// Fetch ONNX Runtime with pip and say how it is named
    Fetch {
        /// The folder to put it into [default: one of your own, in which it is looked for]
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
    /// Raise ONNX's operator set to this version
    #[arg(long, value_name = "N")]
    pub(crate) opset: Option<i64>,
    /// Make everything that is float16, bfloat16 or double float32, inputs and outputs too
    #[arg(long)]
    pub(crate) float32: bool,
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
    /// reference, onnxruntime or rten
    #[arg(long, value_name = "NAME", default_value = "reference", value_parser = Known(known::runtimes), hide_possible_values = true)]
    pub(crate) runtime: String,
    /// Literal arithmetic: the runtime's graph optimizations off
    #[arg(long)]
    pub(crate) literal: bool,
    /// Threads of the runtime
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) threads: usize,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Inspect {
    /// The model
    pub(crate) model: PathBuf,
    /// Shape of an input for counting: NAME=1,3,224,224
    #[arg(long, value_name = "NAME=SHAPE", value_parser = shape)]
    pub(crate) shape: Vec<(String, Vec<usize>)>,
}

/// Which rows of a data set, and how an image becomes an input.
#[derive(ClapArgs, Debug)]
pub(crate) struct Samples {
    /// The data set's split
    #[arg(long, default_value = "test")]
    pub(crate) split: String,
    /// Rows that run at once [default: 64; 8 where two models are compared, whose values are all kept]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch: Option<u32>,
    /// Only N rows, evenly chosen (the first N where a state goes from row to row)
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// What the network is for [default: the model's own, else classification]
    #[arg(long, value_name = "TASK", value_parser = Known(known::tasks), hide_possible_values = true)]
    pub(crate) task: Option<String>,
    /// The array to predict, for a task that predicts numbers from an npz file [default: y, target or targets]
    #[arg(long, value_name = "ARRAY", requires = "task")]
    pub(crate) target: Option<String>,
    #[command(flatten)]
    pub(crate) preprocess: Preprocessing,
}

/// How an image becomes an input; what is not given is as the model's metadata say.
#[derive(ClapArgs, Debug)]
pub(crate) struct Preprocessing {
    /// Factor on pixels [default: the model's own, else 1/255]; this and the following replace one setting each
    #[arg(long, value_name = "X")]
    pub(crate) scale: Option<f64>,
    /// Subtracted for each channel: 0.485,0.456,0.406
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) mean: Vec<f64>,
    /// Divided by for each channel
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) std: Vec<f64>,
    /// Resize images: the shorter side, or HEIGHT,WIDTH
    #[arg(long, value_name = "N", value_parser = size)]
    pub(crate) size: Option<Size>,
    /// Cut the middle out of images: HEIGHT,WIDTH, or one number for both
    #[arg(long, value_name = "N", value_parser = sides)]
    pub(crate) crop: Option<[usize; 2]>,
    /// Turn images grey (1) or into colours (3)
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
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Compare {
    /// The model that is taken as right
    pub(crate) a: PathBuf,
    /// The model that is compared with it
    pub(crate) b: PathBuf,
    /// A data set to compare them on: a folder or file
    #[arg(long, value_name = "PATH", conflicts_with = "input")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) samples: Samples,
    /// npz file with the inputs; without data and arrays, seeded noise
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Shape of an input: NAME=1,3,224,224
    #[arg(long, value_name = "NAME=SHAPE", value_parser = shape)]
    pub(crate) shape: Vec<(String, Vec<usize>)>,
    /// Seed of the noise
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Bench {
    /// Time training steps: forward, loss, backward, update
    Train(BenchTrain),
    /// Time inferences in a runtime
    Infer(BenchInfer),
    /// Measure what the machine reaches at most: arithmetic and memory
    Machine,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct BenchTrain {
    /// The model
    pub(crate) model: PathBuf,
    /// Samples a step, where the model leaves the batch open
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch: u32,
    /// Steps that count; a few more warm up
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) steps: u32,
    /// Quantize to 8 bits first and train through the quantizers
    #[arg(long)]
    pub(crate) qat: bool,
    /// Hold this share of the weights at zero by a mask
    #[arg(long, value_name = "X")]
    pub(crate) sparsity: Option<f64>,
    /// Distil from this model in each step
    #[arg(long, value_name = "MODEL")]
    pub(crate) teacher: Option<PathBuf>,
    /// What a step may hold, such as "2 GB": activations are computed again where it would be more (--memory-limit refuses instead)
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<ByteSize>,
    /// Shape of an input: NAME=1,3,224,224
    #[arg(long, value_name = "NAME=SHAPE", value_parser = shape)]
    pub(crate) shape: Vec<(String, Vec<usize>)>,
    /// npz file with arrays by input; inputs that it lacks are random
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct BenchInfer {
    /// The model
    pub(crate) model: PathBuf,
    /// Samples a run, where the model leaves the batch open
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch: u32,
    /// Runs that count; none starts after ten seconds
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// Shape of an input: NAME=1,3,224,224
    #[arg(long, value_name = "NAME=SHAPE", value_parser = shape)]
    pub(crate) shape: Vec<(String, Vec<usize>)>,
    /// npz file with arrays by input; inputs that it lacks are random
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
    /// Multiplies the channels of every hidden layer
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub(crate) width: f64,
    /// Number of classes
    #[arg(long, value_name = "N")]
    pub(crate) classes: Option<usize>,
    /// Shape of one input: channels,height,width
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) input: Option<Vec<usize>>,
    /// Key of the weights
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

fn shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let (name, dims) = text.rsplit_once('=').ok_or("NAME=1,3,224,224 is needed")?;
    // Nothing at all is the shape of a scalar.
    let list = dims.split(',').filter(|_| !dims.trim().is_empty());
    let dims = list.map(|d| d.trim().parse().map_err(|_| format!("'{d}' is not a size"))).collect::<Result<_, _>>()?;
    Ok((name.to_string(), dims))
}

fn size(text: &str) -> Result<Size, String> {
    Ok(if text.contains(',') { Size::Exact(sides(text)?) } else { Size::ShorterSide(side(text)?) })
}

fn sides(text: &str) -> Result<[usize; 2], String> {
    let (height, width) = text.split_once(',').unwrap_or((text, text));
    Ok([side(height)?, side(width)?])
}

fn side(text: &str) -> Result<usize, String> {
    text.trim().parse().ok().filter(|n| *n > 0).ok_or_else(|| format!("'{text}' is not a number of pixels"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Args::command().debug_assert();
    }

    #[test]
    fn a_shape_without_sizes_is_a_scalars() {
        assert_eq!(super::shape("sr="), Ok(("sr".to_string(), vec![])));
        assert_eq!(super::shape("a=b=1, 3"), Ok(("a=b".to_string(), vec![1, 3])));
        assert!(["x", "x=,", "x=1,,2", "x=1,", "x=-1"].iter().all(|text| super::shape(text).is_err()));
    }
}
