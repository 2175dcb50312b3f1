//! Values of options, read from their text.
use espalier::data::Size;

/// A name and a shape: `NAME=1,3,224,224`.
pub(crate) fn shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let (name, dims) = text.rsplit_once('=').ok_or("NAME=1,3,224,224 is needed")?;
    // An empty list is the shape of a scalar.
    let list = dims.split(',').filter(|_| !dims.trim().is_empty());
    let dims = list.map(|d| d.trim().parse().map_err(|_| format!("'{d}' is not a size"))).collect::<Result<_, _>>()?;
    Ok((name.to_string(), dims))
}

/// The size that images are brought to: that of the shorter side, or of both.
pub(crate) fn size(text: &str) -> Result<Size, String> {
    Ok(if text.contains(',') { Size::Exact(sides(text)?) } else { Size::ShorterSide(side(text)?) })
}

/// Height and width, or one number for both.
pub(crate) fn sides(text: &str) -> Result<[usize; 2], String> {
    let (height, width) = text.split_once(',').unwrap_or((text, text));
    Ok([side(height)?, side(width)?])
}

/// A share that leaves something: at least 0 and below 1.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    text.trim()
        .parse()
        .ok()
        .filter(|x| (0.0..1.0).contains(x))
        .ok_or_else(|| "a share at least 0 and below 1 is needed: half is 0.5".into())
}

fn side(text: &str) -> Result<usize, String> {
    text.trim().parse().ok().filter(|n| *n > 0).ok_or_else(|| format!("'{text}' is not a number of pixels"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_shape_without_sizes_is_a_scalars() {
        assert_eq!(super::shape("sr="), Ok(("sr".to_string(), vec![])));
        assert_eq!(super::shape("a=b=1, 3"), Ok(("a=b".to_string(), vec![1, 3])));
        assert!(["x", "x=,", "x=1,,2", "x=1,", "x=-1"].iter().all(|text| super::shape(text).is_err()));
    }
}
