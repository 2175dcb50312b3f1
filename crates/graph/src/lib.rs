//! The model in memory: one graph from import to export.
//!
//! A [`Model`] owns every value of its main graph and of all subgraphs in one table ([`Values`]), so a [`ValueId`] is
//! unique across subgraphs even where two branches reuse a name. *Topology* ([`Graph`], [`Node`]) says what the network
//! computes; *annotations* ([`Annotations`], a table beside the graph keyed by value) say how each value is compressed.
//! This crate knows no protobuf and does no I/O.
mod annotation;
mod attribute;
mod edit;
mod element_type;
mod error;
mod inline;
mod links;
mod model;
mod pattern;
mod value;
mod verify;

pub use annotation::{Annotation, Annotations, Encoding, FOLDED_SCALE, Setting};
pub use attribute::{Attribute, AttributeValue, Attributes};
pub use edit::Names;
pub use element_type::{code_of_dtype, dtype_of_code};
pub use error::GraphError;
pub use inline::inline_functions;
pub use links::{Linked, Links};
pub use model::{Extra, Function, Graph, Model, Node, Opset, Source};
pub use pattern::matches;
pub use value::{Constant, Dim, Origin, Value, ValueId, ValueType, Values};
