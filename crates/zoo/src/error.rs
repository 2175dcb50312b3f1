//! Errors of building a network.
use graph::GraphError;
use tensor::TensorError;

/// Result of building a network.
pub type Result<T, E = ZooError> = std::result::Result<T, E>;

/// A network that could not be built with the given options.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ZooError {
    /// No architecture has this name.
    #[error("there is no architecture '{name}'{}; known are: {}", meant(suggestion), known.join(", "))]
    UnknownArchitecture {
        /// The unknown name.
        name: String,
        /// The most similar name, if any.
        suggestion: Option<String>,
        /// All known names.
        known: Vec<String>,
    },
    /// An option outside what the architecture can be built for.
    #[error("{architecture}: {option} {what}")]
    Option {
        /// Name of the architecture.
        architecture: String,
        /// Name of the option.
        option: &'static str,
        /// Its value and the allowed values.
        what: String,
    },
    /// The input is too small (or of the wrong rank) for a layer.
    #[error("{architecture}: layer '{layer}' cannot take an input of shape {shape:?}: {what}")]
    Layer {
        /// Name of the architecture.
        architecture: String,
        /// Name of the layer.
        layer: String,
        /// Shape of the layer's input, without the batch.
        shape: Vec<usize>,
        /// What the layer needs.
        what: String,
    },
    /// Initialising a parameter failed.
    #[error("parameter '{name}': {source}")]
    Parameter {
        /// Name of the parameter.
        name: String,
        /// Why.
        source: TensorError,
    },
    /// The graph that was built is not well formed.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

fn meant(suggestion: &Option<String>) -> String {
    suggestion.as_ref().map(|s| format!(" (did you mean '{s}'?)")).unwrap_or_default()
}
