//! The loader: the same batches whatever the number of threads, resuming, augmentation, and errors that name the row.
use espalier_data::{
    ArraysDataset, Audio, Augment, Batch, Content, Dataset, Holdout, Layout, Loader, LoaderOptions, Preprocess, Result, Sample, Shuffle,
    split_holdout,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use tensor::Tensor;

/// `rows` images of 4 x 3 pixels; row `r`'s class is `r % 3`.
fn images(rows: usize) -> ArraysDataset {
    let pixels = (0..rows * 12).map(|i| (i * 7 % 256) as u8).collect();
    let labels = (0..rows).map(|row| (row % 3) as i64).collect();
    let x = Tensor::new::<u8>(pixels, [rows, 4, 3]).unwrap();
    ArraysDataset::new(Path::new("images.npz"), BTreeMap::from([("x".into(), x), ("y".into(), Tensor::vector::<i64>(labels))])).unwrap()
}

/// The same in runs of rows, as a Parquet file has them.
struct InRuns(ArraysDataset, usize);

impl Dataset for InRuns {
    fn path(&self) -> &Path {
        self.0.path()
    }
    fn len(&self) -> usize {
        self.0.len()
    }
    fn class_names(&self) -> &[String] {
        self.0.class_names()
    }
    fn read(&self, row: usize) -> Result<Sample> {
        self.0.read(row)
    }
    fn runs(&self) -> Vec<Range<usize>> {
        (0..self.len()).step_by(self.1).map(|start| start..(start + self.1).min(self.len())).collect()
    }
}

/// Sounds of 2, 3, 4, ... samples, each full scale.
struct Sounds(usize);

impl Dataset for Sounds {
    fn path(&self) -> &Path {
        Path::new("sounds")
    }
    fn len(&self) -> usize {
        self.0
    }
    fn class_names(&self) -> &[String] {
        &[]
    }
    fn read(&self, row: usize) -> Result<Sample> {
        Ok(Sample::new(Content::Audio(Audio { samples: vec![1.0; row + 2], rate: 8000 }), None))
    }
}

fn epoch(dataset: &Arc<dyn Dataset>, options: &LoaderOptions) -> Vec<Batch> {
    Loader::new(dataset.clone(), options.clone()).unwrap().collect::<Result<_>>().unwrap()
}

fn rows(batches: &[Batch]) -> Vec<usize> {
    batches.iter().flat_map(|batch| batch.rows.clone()).collect()
}

fn same(a: &[Batch], b: &[Batch]) -> bool {
    let equal = |(a, b): (&Batch, &Batch)| a.rows == b.rows && a.inputs == b.inputs && a.targets.labels == b.targets.labels;
    a.len() == b.len() && a.iter().zip(b).all(equal)
}

fn training(shuffle: Shuffle) -> LoaderOptions {
    LoaderOptions { batch: 8, shuffle, seed: 3, augment: Augment { crop_padding: 1, flip: true }, ..LoaderOptions::default() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn threads_and_resuming_change_nothing(count in 1usize..90, run in 1usize..40, buffer in 0usize..60, skip in 0usize..6, drop_last: bool) {
        let datasets: [Arc<dyn Dataset>; 2] = [Arc::new(images(count)), Arc::new(InRuns(images(count), run))];
        for dataset in &datasets {
            let options = LoaderOptions { drop_last, workers: 0, ..training(Shuffle::On { buffer }) };
            let alone = epoch(dataset, &options);
            let whole = if drop_last { count / 8 * 8 } else { count };
            let mut seen = rows(&alone);
            seen.sort_unstable();
            seen.dedup();
            prop_assert_eq!(seen.len(), whole);
            for workers in [1, 4] {
                let threaded = epoch(dataset, &LoaderOptions { workers, ..options.clone() });
                prop_assert!(same(&alone, &threaded));
            }
            let resumed = epoch(dataset, &LoaderOptions { skip, workers: 2, ..options });
            prop_assert!(same(&alone[skip.min(alone.len())..], &resumed));
        }
    }
}

#[test]
fn epochs_stages_and_seeds_have_orders_of_their_own() {
    let dataset: Arc<dyn Dataset> = Arc::new(images(50));
    let first = training(Shuffle::On { buffer: 0 });
    let orders = [
        first.clone(),
        LoaderOptions { epoch: 1, ..first.clone() },
        LoaderOptions { stage: 1, ..first.clone() },
        LoaderOptions { seed: 4, ..first },
    ]
    .map(|options| rows(&epoch(&dataset, &options)));
    for (i, order) in orders.iter().enumerate() {
        assert!(!orders[..i].contains(order));
    }
    assert_eq!(rows(&epoch(&dataset, &training(Shuffle::Off))), (0..50).collect::<Vec<_>>());
}

#[test]
fn a_shuffle_buffer_mixes_runs() {
    let dataset: Arc<dyn Dataset> = Arc::new(InRuns(images(100), 10));
    let batches = epoch(&dataset, &training(Shuffle::On { buffer: 40 }));
    let runs: std::collections::BTreeSet<usize> = batches[5].rows.iter().map(|row| row / 10).collect();
    assert!(runs.len() >= 3, "{runs:?}");
}

#[test]
fn augmentation_shifts_and_mirrors_and_pads_with_black() {
    let dataset: Arc<dyn Dataset> = Arc::new(images(64));
    let raw = Preprocess { scale: 1.0, ..Preprocess::default() };
    let options = LoaderOptions { batch: 1, preprocess: raw, ..training(Shuffle::Off) };
    let mut mirrored = 0;
    for batch in epoch(&dataset, &options) {
        let Content::Image(image) = dataset.read(batch.rows[0]).unwrap().content else { panic!("not an image") };
        let pixel = |y: isize, x: isize| {
            let inside = (0..4).contains(&y) && (0..3).contains(&x);
            if inside { f32::from(image.pixels[(y * 3 + x) as usize]) } else { 0.0 }
        };
        let got = batch.inputs["input"].as_slice::<f32>().unwrap();
        let views = (-1..=1).flat_map(|down| (-1..=1).flat_map(move |right| [(down, right, false), (down, right, true)]));
        let view = |(down, right, mirror): &(isize, isize, bool)| {
            let expected = (0..12).map(|i| pixel(i / 3 + down, if *mirror { 2 - i % 3 } else { i % 3 } + right));
            expected.zip(got).all(|(a, b)| a == *b)
        };
        let found: Vec<_> = views.filter(view).collect();
        assert!(!found.is_empty(), "row {} is no view of its image", batch.rows[0]);
        mirrored += usize::from(found[0].2);
    }
    assert!((16..48).contains(&mirrored), "{mirrored} of 64 are mirrored");
}

#[test]
fn layouts_normalisation_and_channels() {
    let dataset: Arc<dyn Dataset> = Arc::new(images(2));
    let preprocess = Preprocess { channels: Some(3), mean: vec![0.5, 0.25, 0.0], std: vec![0.5], ..Preprocess::default() };
    let nchw =
        &epoch(&dataset, &LoaderOptions { preprocess: preprocess.clone(), input: "x".into(), ..LoaderOptions::default() })[0].inputs["x"];
    let preprocess = Preprocess { layout: Layout::Nhwc, ..preprocess };
    let nhwc = &epoch(&dataset, &LoaderOptions { preprocess, input: "x".into(), ..LoaderOptions::default() })[0].inputs["x"];
    assert_eq!((nchw.shape(), nhwc.shape()), (&[2, 3, 4, 3][..], &[2, 4, 3, 3][..]));
    let value = 35.0 / 255.0; // Pixel 5 of row 0 is 35.
    let (planes, pixels) = (nchw.as_slice::<f32>().unwrap(), nhwc.as_slice::<f32>().unwrap());
    for (channel, mean) in [0.5f64, 0.25, 0.0].into_iter().enumerate() {
        let expected = ((value - mean) / 0.5) as f32;
        assert_eq!((planes[channel * 12 + 5], pixels[5 * 3 + channel]), (expected, expected));
    }
}

#[test]
fn preprocessing_survives_json_and_refuses_unknown_keys() {
    let text = r#"{"channels":3,"size":256,"filter":"bicubic","crop":[224,224],"layout":"nchw","scale":1.0,"mean":[127.0],"std":[128.0]}"#;
    let read: Preprocess = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), text);
    assert!(serde_json::from_str::<Preprocess>(r#"{"sice":256}"#).is_err());
    for bad in [
        Preprocess { std: vec![0.0], ..Preprocess::default() },
        Preprocess { channels: Some(2), ..Preprocess::default() },
        Preprocess { channels: Some(3), mean: vec![1.0, 2.0], ..Preprocess::default() },
        Preprocess { scale: f64::NAN, ..Preprocess::default() },
    ] {
        assert!(bad.validate().is_err(), "{bad:?}");
    }
}

fn first_error(arrays: BTreeMap<String, Tensor>, options: LoaderOptions) -> String {
    let dataset = Arc::new(ArraysDataset::new(Path::new("bad.npz"), arrays).unwrap());
    let mut loader = Loader::new(dataset, options).unwrap();
    let error = loader.find_map(|batch| batch.err()).unwrap().to_string();
    assert!(loader.next().is_none(), "an epoch ends at its first error");
    error
}

#[test]
fn errors_name_the_row() {
    let mut values = vec![0f32; 40];
    values[26] = f32::NAN;
    let x = Tensor::new(values, [20, 2]).unwrap();
    let options = LoaderOptions { batch: 4, workers: 2, ..LoaderOptions::default() };
    let error = first_error(BTreeMap::from([("x".into(), x)]), options.clone());
    assert_eq!(error, "bad.npz, row 13: element 0 of the input is NaN or infinite");

    let arrays = BTreeMap::from([("x".into(), Tensor::vector(vec![0f32; 3])), ("y".into(), Tensor::vector(vec![0i64, 1, 2]))]);
    let error = first_error(arrays, LoaderOptions { classes: Some(2), ..options.clone() });
    assert_eq!(error, "bad.npz, row 2: label 2 is out of range: there are 2 classes, 0..1");

    let arrays = BTreeMap::from([("x".into(), Tensor::full(0u8, [3, 4, 4]).unwrap())]);
    let preprocess = Preprocess { crop: Some([5, 4]), ..Preprocess::default() };
    let error = first_error(arrays.clone(), LoaderOptions { preprocess, ..options.clone() });
    assert_eq!(error, "bad.npz, row 0: preprocess.crop 5 x 4 is larger than the image, 4 x 4");
    let preprocess = Preprocess { mean: vec![0.0; 3], ..Preprocess::default() };
    let error = first_error(arrays, LoaderOptions { preprocess, ..options.clone() });
    assert!(error.contains("row 0: preprocess.mean has 3 values, the image 1 channels"), "{error}");

    let dataset: Arc<dyn Dataset> = Arc::new(images(5));
    let outside = LoaderOptions { rows: Some(Arc::new(vec![1, 5])), ..options.clone() };
    assert_eq!(Loader::new(dataset.clone(), outside).map(|_| ()).unwrap_err().to_string(), "images.npz, row 5: only 5 rows");
    assert!(Loader::new(dataset, LoaderOptions { batch: 0, ..options }).is_err());
}

#[test]
fn arrays_keep_their_names_and_types() {
    let arrays = BTreeMap::from([
        ("ids".to_string(), Tensor::new((0..6i64).collect::<Vec<_>>(), [3, 2]).unwrap()),
        ("mask".to_string(), Tensor::vector(vec![true, false, true])),
    ]);
    let dataset: Arc<dyn Dataset> = Arc::new(ArraysDataset::new(Path::new("a.npz"), arrays.clone()).unwrap());
    let batch = &epoch(&dataset, &LoaderOptions::default())[0];
    assert_eq!(batch.inputs, arrays);
    assert!(batch.targets.labels.is_none());
}

#[test]
fn a_loader_may_be_left_early() {
    let dataset: Arc<dyn Dataset> = Arc::new(images(1000));
    let mut loader = Loader::new(dataset, LoaderOptions { batch: 4, workers: 4, ..LoaderOptions::default() }).unwrap();
    assert_eq!(loader.remaining(), 250);
    loader.next().unwrap().unwrap();
    assert_eq!(loader.remaining(), 249);
}

#[test]
fn rows_are_held_out_class_by_class() {
    let dataset = images(31);
    let split = split_holdout(&dataset, Holdout::Count(10), 7).unwrap();
    assert_eq!(split, split_holdout(&dataset, Holdout::Count(10), 7).unwrap());
    assert_ne!(split, split_holdout(&dataset, Holdout::Count(10), 8).unwrap());
    let mut all = [split.train.clone(), split.held_out.clone()].concat();
    all.sort_unstable();
    assert_eq!(all, (0..31).collect::<Vec<_>>());
    let count = |class| split.held_out.iter().filter(|row| *row % 3 == class).count();
    assert_eq!((count(0) + count(1) + count(2), count(0).min(count(1)).min(count(2))), (10, 3));
    assert_eq!(split_holdout(&dataset, Holdout::Fraction(0.1), 0).unwrap().held_out.len(), 3);
    for bad in [Holdout::Count(0), Holdout::Count(31), Holdout::Fraction(1.5), Holdout::Fraction(f64::NAN)] {
        assert!(split_holdout(&dataset, bad, 0).is_err());
    }
}

#[test]
fn a_sound_reaches_its_input_at_the_wanted_length() {
    let preprocess = Preprocess { audio_length: Some(3), audio_rate: Some(8000), ..Preprocess::default() };
    let options = LoaderOptions { input: "wave".into(), batch: 3, preprocess, ..LoaderOptions::default() };
    let batches = epoch(&(Arc::new(Sounds(3)) as Arc<dyn Dataset>), &options);
    let sounds: Vec<f32> = vec![1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
    assert_eq!(batches.len(), 1);
    assert_eq!(batches[0].inputs, BTreeMap::from([("wave".to_string(), Tensor::new(sounds, [3, 3]).unwrap())]));
}
