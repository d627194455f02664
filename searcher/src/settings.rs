//! The keys of a search's settings as a user meets them.

/// One key of [`Config`](crate::Config) as a user meets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettingHelp {
    /// Name, as in `--set NAME=VALUE`.
    pub key: &'static str,
    /// What a value must be.
    pub expects: &'static str,
    /// What it does.
    pub about: &'static str,
}

const fn help(key: &'static str, expects: &'static str, about: &'static str) -> SettingHelp {
    SettingHelp {
        key,
        expects,
        about,
    }
}

const COUNT: &str = "a whole number";
const NUMBER: &str = "a number";
const SWITCH: &str = "true or false";
const COLOURS: &str = "three numbers, as [0.5,0.5,0.5]";

/// One entry per field of `Config`, in its order.
pub(crate) const SETTINGS: &[SettingHelp] = &[
    help(
        "search_space",
        "a name or a file",
        "operations to choose from",
    ),
    help(
        "draws_per_sample",
        "a whole number or null",
        "operations per augmented sample (null: the search space's)",
    ),
    help(
        "network",
        "a network's name or a .pt file",
        "proxy network: wrn-DEPTH-WIDTH, resnet-18, resnet-50, proxy, or a TorchScript file",
    ),
    help(
        "precision",
        "f32 or bf16",
        "network: what its convolutions compute in",
    ),
    help(
        "engine",
        "auto, native or libtorch",
        "network: what computes its gradients (auto: native where there is one)",
    ),
    help(
        "image_size",
        COUNT,
        "side in pixels of the images the network sees",
    ),
    help("epochs", COUNT, "search epochs, one snapshot each"),
    help("train_samples", COUNT, "samples that train the network"),
    help("validation_samples", COUNT, "samples that train the policy"),
    help(
        "classes",
        "a whole number or null",
        "classes drawn for the proxy data, equally many samples of each (null: all classes)",
    ),
    help("train_batch", COUNT, "samples of a training batch"),
    help("validation_batch", COUNT, "samples of a validation batch"),
    help(
        "branches",
        COUNT,
        "policies drawn in a step, one augmented copy each",
    ),
    help(
        "exploit_probability",
        NUMBER,
        "chance of drawing a policy from its probabilities instead of uniformly",
    ),
    help(
        "learning_rate",
        NUMBER,
        "network: SGD's rate at the start, falling along a cosine",
    ),
    help(
        "loss",
        "sum or mean",
        "network: sum or mean of the samples' losses",
    ),
    help("momentum", NUMBER, "network: SGD's momentum"),
    help(
        "nesterov",
        SWITCH,
        "network: Nesterov's form of the momentum",
    ),
    help("weight_decay", NUMBER, "network: SGD's weight decay"),
    help(
        "total_probability",
        NUMBER,
        "policy: total probability at the start",
    ),
    help(
        "learn_total_probability",
        SWITCH,
        "policy: learn the total probability or keep it",
    ),
    help(
        "learn_operation_probabilities",
        SWITCH,
        "policy: learn them or keep them uniform",
    ),
    help(
        "total_learning_rate",
        NUMBER,
        "policy: Adam's rate for the total probability",
    ),
    help(
        "operation_learning_rate",
        NUMBER,
        "policy: Adam's rate for the operations",
    ),
    help(
        "adam_beta1",
        NUMBER,
        "policy: Adam's decay rate of the first moment",
    ),
    help(
        "adam_beta2",
        NUMBER,
        "policy: Adam's decay rate of the second moment",
    ),
    help(
        "learning_rate_factor",
        SWITCH,
        "policy: scale its gradient by the network's rate",
    ),
    help(
        "subtract_plain",
        SWITCH,
        "policy: judge a copy relative to the plain one (equation 9)",
    ),
    help(
        "snapshot",
        "start or end",
        "when in its epoch the policy's snapshot is taken",
    ),
    help(
        "smoothing_window",
        COUNT,
        "epochs over which training smooths the total probability",
    ),
    help(
        "crop",
        "padded or resized",
        "crop out of a black border after the operations, or a resized part before them",
    ),
    help(
        "crop_scale",
        "two numbers, as [0.08,1]",
        "least and greatest share of the area that a resized crop keeps",
    ),
    help(
        "shared_crop",
        SWITCH,
        "share crop, flip and cutout among the copies of a sample",
    ),
    help(
        "crop_padding",
        COUNT,
        "border in pixels before the random crop of training images",
    ),
    help(
        "flip",
        SWITCH,
        "mirror training images with probability 1/2",
    ),
    help(
        "cutout",
        COUNT,
        "side in pixels of the square cut out of training images",
    ),
    help(
        "turn_validation",
        SWITCH,
        "turn validation images by 90 degrees (sanity check)",
    ),
    help("mean", COLOURS, "mean of each colour, on the 0..1 scale"),
    help(
        "std",
        COLOURS,
        "standard deviation of each colour, on the 0..1 scale",
    ),
    help(
        "seed",
        COUNT,
        "decides the split, the initial weights and every draw",
    ),
];
