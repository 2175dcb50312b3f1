//! Sliding windows over spatial axes: attributes shared by convolutions and pools.
use crate::OpError;
use graph::{Dim, Node};

/// Kernel, strides, padding and dilations, one entry a spatial axis.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    pub(crate) kernel: Vec<usize>,
    pub(crate) strides: Vec<usize>,
    pub(crate) pads: Vec<(usize, usize)>,
    pub(crate) dilations: Vec<usize>,
    pub(crate) ceil_mode: bool,
    auto_pad: AutoPad,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AutoPad {
    Explicit,
    SameUpper,
    SameLower,
    Valid,
}

impl Window {
    /// Reads the attributes for a kernel of these sizes.
    pub(crate) fn of(node: &Node, kernel: Vec<usize>) -> Result<Window, OpError> {
        let axes = kernel.len();
        fits(node, "kernel_shape", &kernel)?;
        if axes == 0 || kernel.contains(&0) {
            return Err(node.error(format!("a kernel of shape {kernel:?} covers nothing")).into());
        }
        let auto_pad = match node.string_or("auto_pad", "NOTSET")? {
            "NOTSET" | "" => AutoPad::Explicit,
            "SAME_UPPER" => AutoPad::SameUpper,
            "SAME_LOWER" => AutoPad::SameLower,
            "VALID" => AutoPad::Valid,
            other => return Err(OpError::unsupported(node, format!("auto_pad = '{other}'"))),
        };
        let pads = sizes(node, "pads", 2 * axes, 0)?;
        Ok(Window {
            strides: positive(node, "strides", axes)?,
            dilations: positive(node, "dilations", axes)?,
            pads: if auto_pad == AutoPad::Explicit { (0..axes).map(|i| (pads[i], pads[i + axes])).collect() } else { vec![(0, 0); axes] },
            ceil_mode: node.int_or("ceil_mode", 0)? != 0,
            auto_pad,
            kernel,
        })
    }

    /// The window given by `kernel_shape`.
    pub(crate) fn of_pool(node: &Node) -> Result<Window, OpError> {
        let kernel = node.ints("kernel_shape")?.ok_or_else(|| node.attribute_error("kernel_shape", "is missing"))?;
        Window::of(node, to_sizes(node, "kernel_shape", &kernel)?)
    }

    /// The window of a convolution; its kernel size is the weight's.
    pub(crate) fn of_weight(node: &Node, weight: &[usize]) -> Result<Window, OpError> {
        let kernel = weight.get(2..).unwrap_or_default().to_vec();
        if let Some(declared) = node.ints("kernel_shape")?
            && to_sizes(node, "kernel_shape", &declared)? != kernel
        {
            return Err(node.attribute_error("kernel_shape", format!("is {declared:?}, the weight's shape {weight:?}")).into());
        }
        Window::of(node, kernel)
    }

    /// Pixels the window spans along an axis.
    pub(crate) fn extent(&self, axis: usize) -> usize {
        (self.kernel[axis] - 1).saturating_mul(self.dilations[axis]).saturating_add(1)
    }

    /// With `auto_pad` turned into explicit padding for an input of these spatial sizes.
    pub(crate) fn padded_for(mut self, node: &Node, spatial: &[usize]) -> Result<Window, OpError> {
        if spatial.len() != self.kernel.len() {
            let what = format!("the input has {} spatial axes, the kernel {}", spatial.len(), self.kernel.len());
            return Err(node.error(what).into());
        }
        if matches!(self.auto_pad, AutoPad::SameUpper | AutoPad::SameLower) {
            for (i, size) in spatial.iter().enumerate() {
                let last = size.div_ceil(self.strides[i]).saturating_sub(1) * self.strides[i];
                let total = last.saturating_add(self.extent(i)).saturating_sub(*size);
                self.pads[i] = split_padding(total, self.auto_pad == AutoPad::SameLower);
            }
        }
        Ok(self)
    }

    /// Number of positions along an axis of `size` pixels (for a window with explicit padding).
    pub(crate) fn positions(&self, node: &Node, axis: usize, size: usize) -> Result<usize, OpError> {
        let (begin, end) = self.pads[axis];
        let (extent, stride) = (self.extent(axis), self.strides[axis]);
        let padded = size.saturating_add(begin).saturating_add(end);
        if padded < extent {
            return Err(node.error(format!("a window of {extent} does not fit in {padded} padded pixels")).into());
        }
        let whole = (padded - extent) / stride + 1;
        let covered = (padded - extent).div_ceil(stride) + 1;
        // A last window that starts in the padding after the input is left out.
        let extra = self.ceil_mode && covered > whole && (covered - 1).saturating_mul(stride) < size.saturating_add(begin);
        Ok(if extra { covered } else { whole })
    }

    /// The same for a declared size.
    pub(crate) fn inferred(&self, node: &Node, axis: usize, dim: &Dim) -> Result<Dim, OpError> {
        let same = matches!(self.auto_pad, AutoPad::SameUpper | AutoPad::SameLower);
        match dim {
            Dim::Known(n) if same => Ok(Dim::Known(n.div_ceil(self.strides[axis]))),
            Dim::Known(n) => self.positions(node, axis, *n).map(Dim::Known),
            named if self.strides[axis] == 1 && (same || self.pads[axis].0 + self.pads[axis].1 + 1 == self.extent(axis)) => {
                Ok(named.clone())
            }
            _ => Ok(Dim::Unknown),
        }
    }

    /// Padding of a transposed convolution that gives an output of these sizes.
    pub(crate) fn pads_for_output(
        &self,
        node: &Node,
        input: &[usize],
        output: &[usize],
        output_padding: &[usize],
    ) -> Result<Vec<(usize, usize)>, OpError> {
        (0..input.len())
            .map(|i| {
                let full = self.spread(node, i, input[i], output_padding[i])?;
                Ok(split_padding(full.saturating_sub(output[i]), self.auto_pad != AutoPad::SameUpper))
            })
            .collect()
    }

    /// Pixels that a transposed window covers along an axis of `size` input pixels, with `more` after them, without padding.
    pub(crate) fn spread(&self, node: &Node, axis: usize, size: usize, more: usize) -> Result<usize, OpError> {
        let steps = size.saturating_sub(1).checked_mul(self.strides[axis]);
        let full = steps.and_then(|s| s.checked_add(more)?.checked_add(self.extent(axis)));
        full.ok_or_else(|| node.error(format!("{size} pixels {} apart cover more than can be counted", self.strides[axis])).into())
    }

    /// True if `auto_pad` asks for an output as large as input times stride.
    pub(crate) fn same(&self) -> bool {
        matches!(self.auto_pad, AutoPad::SameUpper | AutoPad::SameLower)
    }
}

/// Padding before and after; the odd pixel goes to the end, or to the beginning.
fn split_padding(total: usize, odd_first: bool) -> (usize, usize) {
    let (less, more) = (total / 2, total - total / 2);
    if odd_first { (more, less) } else { (less, more) }
}

fn to_sizes(node: &Node, name: &str, list: &[i64]) -> Result<Vec<usize>, OpError> {
    list.iter().map(|v| usize::try_from(*v).map_err(|_| OpError::unsupported(node, format!("{v} in attribute '{name}'")))).collect()
}

/// A list of non-negative integers of a given length, or a default in each place.
pub(crate) fn sizes(node: &Node, name: &str, len: usize, default: usize) -> Result<Vec<usize>, OpError> {
    let Some(list) = node.ints(name)?.filter(|l| !l.is_empty()) else { return Ok(vec![default; len]) };
    if list.len() != len {
        return Err(node.attribute_error(name, format!("has {} entries where {len} are needed", list.len())).into());
    }
    let list = to_sizes(node, name, &list)?;
    fits(node, name, &list)?;
    Ok(list)
}

/// Refuses sizes larger than any tensor's, so that sums and products of two need no further check.
fn fits(node: &Node, name: &str, list: &[usize]) -> Result<(), OpError> {
    match list.iter().find(|n| **n > tensor::MAX_AXIS) {
        Some(n) => Err(OpError::unsupported(node, format!("{n} in attribute '{name}', more than {}", tensor::MAX_AXIS))),
        None => Ok(()),
    }
}

fn positive(node: &Node, name: &str, len: usize) -> Result<Vec<usize>, OpError> {
    let list = sizes(node, name, len, 1)?;
    if list.contains(&0) {
        return Err(node.attribute_error(name, "has a zero").into());
    }
    Ok(list)
}

/// Spatial sizes: all but batch and channels.
pub(crate) fn spatial<'a>(node: &Node, shape: &'a [usize]) -> Result<&'a [usize], OpError> {
    match shape {
        [_, _, rest @ ..] if !rest.is_empty() => Ok(rest),
        _ => Err(node.error(format!("needs batch, channel and spatial axes, the input has shape {shape:?}")).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph::AttributeValue;

    fn window(attributes: &[(&str, AttributeValue)]) -> (Node, Window) {
        let mut node = Node::new("MaxPool", "p", &[], &[]);
        node.attributes.set("kernel_shape", AttributeValue::Ints(vec![3]));
        for (name, value) in attributes {
            node.attributes.set(name, value.clone());
        }
        let w = Window::of_pool(&node).unwrap();
        (node, w)
    }

    #[test]
    fn same_padding_puts_the_odd_pixel_where_asked() {
        for (mode, pads) in [("SAME_UPPER", (0, 1)), ("SAME_LOWER", (1, 0))] {
            let (node, w) = window(&[("auto_pad", AttributeValue::String(mode.into())), ("strides", AttributeValue::Ints(vec![2]))]);
            let w = w.padded_for(&node, &[6]).unwrap();
            assert_eq!(w.pads, [pads]);
            assert_eq!(w.positions(&node, 0, 6).unwrap(), 3);
        }
    }

    #[test]
    fn a_last_window_in_the_padding_is_left_out() {
        let ceil = ("ceil_mode", AttributeValue::Int(1));
        let strides = ("strides", AttributeValue::Ints(vec![2]));
        let (node, w) = window(&[ceil.clone(), strides.clone()]);
        assert_eq!(w.positions(&node, 0, 6).unwrap(), 3);
        let (node, w) = window(&[ceil, ("strides", AttributeValue::Ints(vec![4])), ("pads", AttributeValue::Ints(vec![0, 3]))]);
        assert_eq!(w.positions(&node, 0, 4).unwrap(), 2);
        assert!(w.positions(&node, 0, 4).is_ok());
    }
}
