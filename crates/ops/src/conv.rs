//! Conv and ConvTranspose.
use crate::couples::{
    Couples, CouplesCx, CutCx,
    Place::{Input, Output},
};
use crate::shapes::{like_first, unknown};
use crate::simple::{Constants, Simple, one};
use crate::window::{Window, sizes, spatial};
use crate::{Effect, EvalCx, Inputs, MacsCx, OpError, Operator, Role, ShapeCx, WeightRule};
use graph::{AttributeValue, Dim, Node, ValueType};
use tensor::{ConvOptions, Tensor};

pub(crate) static OPERATORS: &[&dyn Operator] = &[
    &Simple::new("Conv", "Convolution over any number of spatial axes.", &[1, 11, 22], conv, infer_conv)
        .role(role)
        .macs(conv_macs)
        .couples(conv_couples)
        .cut(cut_groups)
        .effect(|_| Effect::Computes { data: vec![0], weight: Some(WeightRule { input: 1, axis: Some(0), bias: Some(2) }) }),
    &Simple::new(
        "ConvTranspose",
        "The transpose of a convolution: spreads each pixel over a window.",
        &[1, 11, 22],
        conv_transpose,
        infer_transpose,
    )
    .role(role)
    .macs(transpose_macs)
    .couples(transpose_couples)
    .cut(cut_groups)
    .effect(|node| {
        let axis = (node.int_or("group", 1) == Ok(1)).then_some(1);
        Effect::Computes { data: vec![0], weight: Some(WeightRule { input: 1, axis, bias: Some(2) }) }
    }),
];

fn role(_: &Node, input: usize) -> Role {
    match input {
        1 => Role::Weight,
        2 => Role::Bias,
        _ => Role::Data,
    }
}

/// The axis of output channels of a transposed convolution with one filter for each channel: the first, as of every depthwise one.
/// `None` for other nodes; in other grouped ones, no axis of the weight counts the output channels.
pub fn depthwise_axis(node: &Node, weight: &[usize]) -> Option<usize> {
    let groups = usize::try_from(node.int_or("group", 1).ok()?).ok()?;
    let depthwise = node.op_type == "ConvTranspose" && node.is_onnx() && weight.len() > 2 && weight[0] == groups && weight[1] == 1;
    depthwise.then_some(0)
}

/// The window in the tensor library's form.
pub(crate) fn options(node: &Node, window: &Window) -> Result<ConvOptions, OpError> {
    let groups = node.int_or("group", 1)?;
    let groups = usize::try_from(groups).ok().filter(|g| *g > 0);
    Ok(ConvOptions {
        strides: window.strides.clone(),
        pads: window.pads.clone(),
        dilations: window.dilations.clone(),
        groups: groups.ok_or_else(|| node.attribute_error("group", "must be positive"))?,
    })
}

fn conv(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let (x, w) = (inputs.get(0)?, inputs.get(1)?);
    let window = Window::of_weight(cx.node, w.shape())?.padded_for(cx.node, spatial(cx.node, x.shape())?)?;
    one(x.conv(w, inputs.opt(2), &options(cx.node, &window)?)?)
}

/// Output shape of a convolution from the shapes of data and weight.
pub(crate) fn conv_shape(cx: &ShapeCx, x: usize, w: usize) -> Result<Option<Vec<Dim>>, OpError> {
    let (Some(x), Some(w)) = (cx.shape(x), cx.shape(w)) else { return Ok(None) };
    if x.len() != w.len() || x.len() < 3 {
        return Err(cx.node.error(format!("data of rank {} and a weight of rank {}", x.len(), w.len())).into());
    }
    let mut out = vec![x[0].clone(), w[0].clone()];
    let Some(kernel) = w.iter().map(Dim::known).collect::<Option<Vec<usize>>>() else {
        out.extend(unknown(x.len() - 2));
        return Ok(Some(out));
    };
    let window = Window::of_weight(cx.node, &kernel)?;
    for (i, dim) in x[2..].iter().enumerate() {
        out.push(window.inferred(cx.node, i, dim)?);
    }
    Ok(Some(out))
}

fn infer_conv(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    like_first(cx, conv_shape(cx, 0, 1)?)
}

/// MACs: one for each output and element of its filter.
fn conv_macs(cx: &MacsCx) -> u64 {
    let (Some(Some(w)), Some(Some(y))) = (cx.inputs.get(1), cx.outputs.first()) else { return 0 };
    product(y).saturating_mul(product(w.get(1..).unwrap_or_default()))
}

/// MACs: one for each input and element of its filter.
fn transpose_macs(cx: &MacsCx) -> u64 {
    let (Some(Some(x)), Some(Some(w))) = (cx.inputs.first(), cx.inputs.get(1)) else { return 0 };
    product(x).saturating_mul(product(w.get(1..).unwrap_or_default()))
}

/// Number of elements of a shape; saturates, since a declared shape may be larger than any tensor.
pub(crate) fn product(shape: &[usize]) -> u64 {
    shape.iter().fold(1, |n, d| n.saturating_mul(*d as u64))
}

/// Window with its final padding, output padding, and the spatial sizes of the output.
fn transposed(node: &Node, weight: &[usize], input: &[usize]) -> Result<(Window, Vec<usize>, Vec<usize>), OpError> {
    let mut window = Window::of_weight(node, weight)?;
    let axes = window.kernel.len();
    if input.len() != axes {
        return Err(node.error(format!("the input has {} spatial axes, the kernel {axes}", input.len())).into());
    }
    let mut output_padding = sizes(node, "output_padding", axes, 0)?;
    let wanted = match node.ints("output_shape")? {
        Some(list) => {
            // Some exporters also write entries for batch and channels.
            let skip = list.len().saturating_sub(axes);
            let list: Option<Vec<usize>> = list[skip..].iter().map(|v| usize::try_from(*v).ok()).collect();
            Some(list.filter(|l| l.len() == axes).ok_or_else(|| node.attribute_error("output_shape", "does not fit the input"))?)
        }
        None if window.same() => Some((0..axes).map(|i| input[i].saturating_mul(window.strides[i])).collect()),
        None => None,
    };
    if let Some(wanted) = &wanted {
        // A requested output larger than the windows cover is padded at its end.
        for i in 0..axes {
            let full = window.spread(node, i, input[i], output_padding[i])?;
            output_padding[i] += wanted[i].saturating_sub(full);
        }
        window.pads = window.pads_for_output(node, input, wanted, &output_padding)?;
    }
    let mut output = vec![];
    for i in 0..axes {
        let full = window.spread(node, i, input[i], output_padding[i])?;
        let size = full.checked_sub(window.pads[i].0 + window.pads[i].1);
        output.push(size.ok_or_else(|| node.error("the padding is larger than the output"))?);
    }
    if let Some(wanted) = wanted.filter(|w| *w != output) {
        return Err(OpError::unsupported(node, format!("an output of {wanted:?} where the windows cover {output:?}")));
    }
    Ok((window, output_padding, output))
}

fn conv_transpose(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let (x, w) = (inputs.get(0)?, inputs.get(1)?);
    let (window, output_padding, _) = transposed(cx.node, w.shape(), spatial(cx.node, x.shape())?)?;
    one(x.conv_transpose(w, inputs.opt(2), &options(cx.node, &window)?, &output_padding)?)
}

fn infer_transpose(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let (Some(x), Some(w)) = (cx.shape(0), cx.shape(1)) else { return like_first(cx, None) };
    if x.len() != w.len() || x.len() < 3 {
        return Err(cx.node.error(format!("data of rank {} and a weight of rank {}", x.len(), w.len())).into());
    }
    let groups = cx.node.int_or("group", 1)?.max(1) as usize;
    let channels = w[1].known().map_or(Dim::Unknown, |c| c.checked_mul(groups).map_or(Dim::Unknown, Dim::Known));
    let mut out = vec![x[0].clone(), channels];
    let known = |dims: &[Dim]| dims.iter().map(Dim::known).collect::<Option<Vec<usize>>>();
    match (known(&x[2..]), known(w)) {
        (Some(input), Some(weight)) => out.extend(transposed(cx.node, &weight, &input)?.2.into_iter().map(Dim::Known)),
        _ => out.extend(unknown(x.len() - 2)),
    }
    like_first(cx, Some(out))
}

/// Groups of a convolution, and data channels of each group; `None` if the sizes are not known.
fn grouping(cx: &CouplesCx) -> Result<Option<(usize, usize)>, OpError> {
    let groups = usize::try_from(cx.node.int_or("group", 1)?).ok().filter(|g| *g > 0);
    Ok(groups.zip(cx.size(Input(0, 1))).map(|(groups, channels)| (groups, channels / groups)))
}

/// Filters go with output channels, a filter's planes with data channels. Groups stay equally large: the channel at one place of each
/// group goes with its like in the others. A group with one data channel is removed with it.
fn conv_couples(cx: &CouplesCx, out: &mut Couples) -> Result<(), OpError> {
    let (Some((groups, planes)), Some(filters)) = (grouping(cx)?, cx.size(Input(1, 0))) else { return Ok(()) };
    out.tie(Input(1, 0), Output(0, 1));
    if cx.input(2).is_some() {
        out.tie(Input(2, 0), Output(0, 1));
    }
    let of_group = (filters / groups).max(1);
    match (groups, planes) {
        (1, _) => out.tie(Input(0, 1), Input(1, 1)),
        (_, 1) => out.tie_at(Input(0, 1), Output(0, 1), (0..filters).map(|o| (o / of_group, o))),
        _ => {
            out.tie_at(Input(0, 1), Input(1, 1), (0..groups * planes).map(|i| (i, i % planes)));
            out.tie_at(Output(0, 1), Output(0, 1), (of_group..filters).map(|o| (o % of_group, o)));
        }
    }
    Ok(())
}

/// As [`conv_couples`] with a weight of `[data channels, output channels of a group, ...]`.
fn transpose_couples(cx: &CouplesCx, out: &mut Couples) -> Result<(), OpError> {
    let (Some((groups, planes)), Some(of_group)) = (grouping(cx)?, cx.size(Input(1, 1))) else { return Ok(()) };
    out.tie(Input(0, 1), Input(1, 0));
    if cx.input(2).is_some() {
        out.tie(Input(2, 0), Output(0, 1));
    }
    match (groups, planes) {
        (1, _) => out.tie(Input(1, 1), Output(0, 1)),
        (_, 1) => out.tie_at(Input(0, 1), Output(0, 1), (0..groups * of_group).map(|o| (o / of_group, o))),
        _ => {
            out.tie_at(Input(0, 1), Input(0, 1), (planes..groups * planes).map(|i| (i % planes, i)));
            out.tie_at(Output(0, 1), Input(1, 1), (0..groups * of_group).map(|o| (o, o % of_group)));
        }
    }
    Ok(())
}

/// Groups with one data channel are as many as there are data channels.
fn cut_groups(cx: &CutCx, node: &mut Node, _: Constants) -> Result<(), OpError> {
    let Some((groups, 1)) = grouping(cx.before)?.filter(|(groups, _)| *groups > 1) else { return Ok(()) };
    let left = cx.kept_of_first(Input(0, 1), groups);
    node.attributes.set("group", AttributeValue::Int(left as i64));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::find;
    use crate::testing::{Case, iota};

    #[test]
    fn padding_and_strides() {
        let w = Tensor::full(1f32, [1, 1, 3, 3]).unwrap();
        let y = Case::new("Conv", 11).ints("pads", &[1, 1, 1, 1]).ints("strides", &[2, 2]).run(&[iota(&[1, 1, 5, 5]), w.clone()]);
        assert_eq!(y.to_f32_vec().unwrap(), [12., 27., 24., 63., 108., 81., 72., 117., 84.]);
        let y = Case::new("Conv", 11).string("auto_pad", "SAME_LOWER").run(&[iota(&[1, 1, 5, 5]), w]);
        assert_eq!(y.shape(), [1, 1, 5, 5]);
    }

    #[test]
    fn a_transposed_convolution_of_a_wanted_size() {
        let w = Tensor::full(1f32, [1, 2, 3, 3]).unwrap();
        for shape in [&[10i64, 8][..], &[1, 2, 10, 8]] {
            let y = Case::new("ConvTranspose", 11).ints("strides", &[3, 2]).ints("output_shape", shape).ints("output_padding", &[1, 1]);
            assert_eq!(y.run(&[iota(&[1, 1, 3, 3]), w.clone()]).shape(), [1, 2, 10, 8]);
        }
    }

    #[test]
    fn macs_count_each_multiplication() {
        let node = Node::new("Conv", "c", &[], &[]);
        let op = find("", "Conv").unwrap();
        let cx = MacsCx {
            node: &node,
            inputs: vec![Some(vec![1, 16, 32, 32]), Some(vec![8, 16, 3, 3])],
            outputs: vec![Some(vec![1, 8, 32, 32])],
        };
        assert_eq!(op.macs(&cx), 8 * 32 * 32 * 16 * 9);
    }
}
