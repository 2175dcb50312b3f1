//! Writes a regression data set: the handwritten digits with the slant of each, computed from its second moments.
//! cargo run -p espalier-data --example slant -- recipes/data/digits recipes/data/slant
use espalier_data::npz;
use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use tensor::Tensor;

/// How far a digit leans to the right for each row upwards: `-m11 / m02`, of its central moments `mpq = sum v (x - mx)^p (y - my)^q` with
/// rows `y` counted downwards. It is the shear by which deskewing sets a digit upright (LeCun et al. 1998, section III.A), 0 for an
/// upright one, 1 for one that leans by 45 degrees. `pixels` has `width` values a row.
fn slant(pixels: &[u8], width: usize) -> f32 {
    let points = || pixels.iter().enumerate().map(|(i, v)| ((i % width) as f64, (i / width) as f64, f64::from(*v)));
    let mass: f64 = points().map(|(_, _, v)| v).sum();
    let (mx, my) = points().fold((0.0, 0.0), |(a, b), (x, y, v)| (a + x * v / mass, b + y * v / mass));
    let (m11, m02) = points().fold((0.0, 0.0), |(a, b), (x, y, v)| (a + v * (x - mx) * (y - my), b + v * (y - my).powi(2)));
    (-m11 / m02) as f32
}

/// The arrays `x`, the digits as they are, and `y`, float32 `[n]`.
fn with_slant(digits: &Path) -> Result<BTreeMap<String, Tensor>, Box<dyn Error>> {
    let x = npz::read(digits)?.remove("x").ok_or("no array x")?;
    let [_, height, width] = x.shape() else { return Err("x is not [n, height, width]".into()) };
    let y = x.as_slice::<u8>()?.chunks(height * width).map(|image| slant(image, *width)).collect();
    Ok(BTreeMap::from([("y".to_string(), Tensor::vector::<f32>(y)), ("x".to_string(), x)]))
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [from, to] = arguments.as_slice() else { return Err("give the folder of the digits, and the folder to write to".into()) };
    for split in ["train", "test"] {
        let arrays = with_slant(&Path::new(from).join(format!("digits-{split}.npz")))?;
        npz::write(&Path::new(to).join(format!("slant-{split}.npz")), &arrays)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stroke_that_leans_by_one_pixel_a_row_has_the_slant_one() {
        let mut right = [0u8; 16];
        (0..4).for_each(|y| right[4 * y + 3 - y] = 9);
        assert!((slant(&right, 4) - 1.0).abs() < 1e-6);
        let mut upright = [0u8; 16];
        (0..4).for_each(|y| upright[4 * y + 1] = 9);
        assert_eq!(slant(&upright, 4), 0.0);
    }

    #[test]
    fn the_files_of_the_recipe_are_those_that_this_writes() {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/data");
        for split in ["train", "test"] {
            let made = with_slant(&data.join(format!("digits/digits-{split}.npz"))).unwrap();
            assert_eq!(npz::read(&data.join(format!("slant/slant-{split}.npz"))).unwrap(), made);
        }
    }
}
