//! Element types named by attributes.
use crate::OpError;
use graph::{Node, dtype_of_code};
use tensor::DType;

/// The element type that an attribute names, if it is present.
pub(crate) fn dtype_attribute(node: &Node, name: &str) -> Result<Option<DType>, OpError> {
    let Some(code) = node.int(name)? else { return Ok(None) };
    match dtype_of_code(code) {
        Some(dtype) => Ok(Some(dtype)),
        None => Err(OpError::unsupported(node, format!("element type number {code} in attribute '{name}'"))),
    }
}
