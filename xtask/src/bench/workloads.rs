//! The workloads: each row of BENCHMARKS.md, for our program and its peers.

/// How the time of a measurement is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Clock {
    /// `step_ms_best` and `step_ms_median` from the process's output.
    Step,
    /// `seconds` from the process's output, else its wall-clock time.
    Seconds,
}

/// A variant of a peer; the fastest in a first pass is measured in the rounds.
pub(super) struct Variant {
    pub(super) name: &'static str,
    /// A script of benches/peers with its arguments, or our own program if it begins with `espalier`.
    pub(super) command: &'static str,
}

/// One row. Commands hold `{models}`, `{data}`, `{recipes}` and `{out}` for folders.
pub(super) struct Workload {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) clock: Clock,
    /// Most rounds, for workloads that take long.
    pub(super) rounds: usize,
    pub(super) ours: &'static str,
    pub(super) peers: &'static [Variant],
    /// The target speed: the peer's time divided by ours.
    pub(super) target: Option<f64>,
}

/// Graphs that the workloads run on, by `espalier new`: file and arguments.
pub(super) const MODELS: &[(&str, &str)] = &[
    ("resnet20", "resnet20"),
    ("resnet20-x2", "resnet20 --width 2"),
    ("resnet20-x4", "resnet20 --width 4"),
    ("resnet56", "resnet56"),
    ("mobilenet", "mobilenet-v1 --width 0.5 --input 3,96,96 --classes 10"),
    ("ds-cnn", "ds-cnn"),
];

const fn variant(name: &'static str, command: &'static str) -> Variant {
    Variant { name, command }
}

const STEP: Workload = Workload { name: "", title: "", clock: Clock::Step, rounds: usize::MAX, ours: "", peers: &[], target: None };
const WHOLE: Workload = Workload { clock: Clock::Seconds, ..STEP };

/// All rows, in the order of the table.
pub(super) const WORKLOADS: &[Workload] = &[
    Workload {
        name: "resnet20",
        title: "ResNet-20 step, fp32, batch 64",
        ours: "bench train {models}/resnet20.onnx --batch 64 --steps 20",
        peers: &[
            variant("NCHW", "train_step.py resnet20 --layout nchw"),
            variant("channels-last", "train_step.py resnet20 --layout channels_last"),
            variant("torch.compile", "train_step.py resnet20 --layout compile"),
        ],
        target: Some(1.15),
        ..STEP
    },
    Workload {
        name: "mobilenet",
        title: "MobileNetV1 step, width 0.5, 96x96, fp32, batch 64",
        ours: "bench train {models}/mobilenet.onnx --batch 64 --steps 15",
        peers: &[
            variant("NCHW", "train_step.py mobilenet --layout nchw --steps 15"),
            variant("channels-last", "train_step.py mobilenet --layout channels_last --steps 15"),
            variant("torch.compile", "train_step.py mobilenet --layout compile --steps 15"),
        ],
        target: Some(1.0),
        ..STEP
    },
    Workload {
        name: "transformer",
        title: "4 transformer blocks step, d = 256, sequence 128, fp32, batch 16",
        ours: "bench train {models}/transformer.onnx --batch 16 --steps 10",
        peers: &[
            variant("eager", "train_step.py transformer --batch 16 --steps 10"),
            variant("torch.compile", "train_step.py transformer --batch 16 --steps 10 --layout compile"),
        ],
        target: Some(1.0),
        ..STEP
    },
    Workload {
        name: "ds-cnn",
        title: "DS-CNN keyword spotting step, fp32, batch 64",
        ours: "bench train {models}/ds-cnn.onnx --batch 64 --steps 30",
        peers: &[
            variant("NCHW", "train_step.py ds_cnn --layout nchw --steps 30"),
            variant("channels-last", "train_step.py ds_cnn --layout channels_last --steps 30"),
            variant("torch.compile", "train_step.py ds_cnn --layout compile --steps 30"),
        ],
        target: Some(1.0),
        ..STEP
    },
    Workload {
        name: "resnet20-qat",
        title: "ResNet-20 step, W8A8 quantization-aware, batch 64",
        ours: "bench train {models}/resnet20.onnx --batch 64 --steps 15 --qat",
        peers: &[
            variant("torch.ao, NCHW", "train_step.py resnet20 --qat --layout nchw --steps 15"),
            variant("torch.ao, channels-last", "train_step.py resnet20 --qat --layout channels_last --steps 15"),
        ],
        target: Some(1.5),
        ..STEP
    },
    Workload {
        name: "resnet20-joint",
        title: "ResNet-20 joint step: mask, W8A8, distillation from ResNet-56, batch 64",
        ours: "bench train {models}/resnet20.onnx --batch 64 --steps 15 --qat --sparsity 0.5 --teacher {models}/resnet56.onnx",
        peers: &[
            variant("torch.ao, NCHW", "train_step.py resnet20 --qat --sparsity 0.5 --teacher --layout nchw --steps 15"),
            variant("torch.ao, channels-last", "train_step.py resnet20 --qat --sparsity 0.5 --teacher --layout channels_last --steps 15"),
        ],
        target: Some(1.5),
        ..STEP
    },
    Workload {
        name: "qat-gemm-transposed",
        title: "Four layers, channels first (Gemm, transB = 1), W8A8 quantization-aware against float",
        ours: "bench train {models}/gemm-transposed.onnx --batch 128 --steps 40 --qat",
        peers: &[variant("our float step", "espalier bench train {models}/gemm-transposed.onnx --batch 128 --steps 40")],
        target: Some(0.67),
        ..STEP
    },
    Workload {
        name: "qat-gemm",
        title: "Four layers, channels last (Gemm, transB = 0), W8A8 quantization-aware against float",
        ours: "bench train {models}/gemm.onnx --batch 128 --steps 40 --qat",
        peers: &[variant("our float step", "espalier bench train {models}/gemm.onnx --batch 128 --steps 40")],
        target: Some(0.67),
        ..STEP
    },
    Workload {
        name: "qat-matmul",
        title: "Four layers, channels last (MatMul), W8A8 quantization-aware against float",
        ours: "bench train {models}/matmul.onnx --batch 128 --steps 40 --qat",
        peers: &[variant("our float step", "espalier bench train {models}/matmul.onnx --batch 128 --steps 40")],
        target: Some(0.67),
        ..STEP
    },
    Workload {
        name: "qat-depthwise",
        title: "Four depthwise blocks, W8A8 quantization-aware against float",
        ours: "bench train {models}/depthwise.onnx --batch 8 --steps 40 --qat",
        peers: &[variant("our float step", "espalier bench train {models}/depthwise.onnx --batch 8 --steps 40")],
        target: Some(0.67),
        ..STEP
    },
    Workload {
        name: "epoch",
        title: "ResNet-20 epoch over 10,000 CIFAR images from Parquet, augmented",
        ours: "run {recipes}/epoch.toml --data-root {data} --output {out}",
        peers: &[
            variant("DataLoader in the process", "epoch.py {data}/cifar10/test-00000-of-00001.parquet --workers 0"),
            variant("DataLoader, 1 worker", "epoch.py {data}/cifar10/test-00000-of-00001.parquet --workers 1"),
            variant("DataLoader, 2 workers", "epoch.py {data}/cifar10/test-00000-of-00001.parquet --workers 2"),
        ],
        target: Some(1.0),
        ..WHOLE
    },
    Workload {
        name: "evaluation",
        title: "Evaluation of CIFAR-10's test set, ResNet-20, fp32, batch 64",
        ours: "evaluate {models}/resnet20.onnx --data {data}/cifar10 --batch 64",
        peers: &[variant(
            "ONNX Runtime, fed by our loader",
            "espalier evaluate {models}/resnet20.onnx --data {data}/cifar10 --batch 64 --runtime onnxruntime --threads 2",
        )],
        target: Some(0.7),
        ..WHOLE
    },
    Workload {
        name: "post-training",
        title: "Post-training W8A8 of EfficientNet-Lite0, 200 images, entropy",
        rounds: 2,
        ours: "run {recipes}/post-training.toml --data-root {data} --output {out}",
        peers: &[variant(
            "quantize_static",
            "post_training.py {data}/models/efficientnet_lite0.onnx {data}/imagenet_sample/validation-00000-of-00001.parquet",
        )],
        target: Some(3.0),
        ..WHOLE
    },
    Workload {
        name: "post-training-20",
        title: "the same with 20 images",
        rounds: 1,
        ours: "run {recipes}/post-training.toml --data-root {data} --output {out} --set stages.quantize.calibration.images=20",
        ..WHOLE
    },
    Workload {
        name: "post-training-500",
        title: "the same with 500 images",
        rounds: 1,
        ours: "run {recipes}/post-training.toml --data-root {data} --output {out} --set stages.quantize.calibration.images=500",
        ..WHOLE
    },
];

/// Batches and widths of ResNet-20 at which our own step is measured: model and batch.
pub(super) const SCALING: &[(&str, u32)] = &[
    ("resnet20", 16),
    ("resnet20", 32),
    ("resnet20", 64),
    ("resnet20", 128),
    ("resnet20", 256),
    ("resnet20", 512),
    ("resnet20-x2", 64),
    ("resnet20-x4", 64),
];
