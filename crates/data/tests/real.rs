//! The data sets beside the repository, and the digits inside it.
use espalier_data::{
    Content, Dataset, Holdout, Image, Loader, LoaderOptions, OpenOptions, Preprocess, Purpose, Shuffle, Size, check_classes, npz, open,
    split_holdout,
};
use std::sync::Arc;
use test_support::folders::{recipes, shared};

fn image(dataset: &dyn Dataset, row: usize) -> Image {
    match dataset.read(row).unwrap().content {
        Content::Image(image) => image,
        other => panic!("{other:?} is not decoded"),
    }
}

/// Options whose inputs are plain pixel values, 0..255.
fn raw_pixels() -> LoaderOptions {
    LoaderOptions { preprocess: Preprocess { scale: 1.0, ..Preprocess::default() }, ..LoaderOptions::default() }
}

fn load(dataset: &Arc<dyn Dataset>, options: LoaderOptions) -> Vec<espalier_data::Batch> {
    Loader::new(dataset.clone(), options).unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn cifar10_parquet() {
    let Some(path) = shared("cifar10") else { return };
    let test = open(&path, &OpenOptions::split("test")).unwrap();
    assert_eq!(test.len(), 10_000);
    assert_eq!(test.class_names()[3], "cat");
    assert_eq!(test.read(0).unwrap().label, Some(3));
    let batch = &load(&test, LoaderOptions { rows: Some(Arc::new(vec![0])), ..raw_pixels() })[0];
    let pixels = batch.inputs["input"].as_slice::<f32>().unwrap();
    assert_eq!((pixels[0], pixels[1024], pixels[2048]), (158.0, 112.0, 49.0));
    let labels = test.labels().unwrap();
    assert!((0..10).all(|class| labels.iter().filter(|label| **label == Some(class)).count() == 1000));
    assert!(check_classes(test.as_ref(), None, 10, Purpose::Training).unwrap().is_empty());

    let train = open(&path, &OpenOptions::split("train")).unwrap();
    assert_eq!((train.len(), train.runs().len()), (50_000, 1));
    let streamed = open(&path, &OpenOptions { cache_bytes: 1 << 20, ..OpenOptions::split("train") }).unwrap();
    assert_eq!(streamed.runs().len(), 10);
    let held = split_holdout(train.as_ref(), Holdout::Count(5000), 1).unwrap();
    assert_eq!((held.train.len(), held.held_out.len()), (45_000, 5000));
    let labels = train.labels().unwrap();
    let of_cats = held.held_out.iter().filter(|row| labels[**row] == Some(3)).count();
    assert_eq!(of_cats, 500);
}

#[test]
fn cifar10_streamed_in_shuffled_runs_gives_every_row_once() {
    let Some(path) = shared("cifar10") else { return };
    let streamed = open(&path, &OpenOptions { cache_bytes: 0, ..OpenOptions::split("test") }).unwrap();
    let options = LoaderOptions { batch: 128, shuffle: Shuffle::On { buffer: 500 }, workers: 2, ..LoaderOptions::default() };
    let mut rows: Vec<usize> = load(&streamed, options).into_iter().flat_map(|batch| batch.rows).collect();
    assert_ne!(rows[..100], (0..100).collect::<Vec<_>>()[..]);
    rows.sort_unstable();
    assert_eq!(rows, (0..10_000).collect::<Vec<_>>());
}

#[test]
fn the_golden_inputs_of_cifar_models_are_the_first_test_images_normalised() {
    let (Some(path), Some(golden)) = (shared("cifar10"), shared("golden/cifar10_resnet20.npz")) else { return };
    let test = open(&path, &OpenOptions::split("test")).unwrap();
    let (mean, std) = (vec![0.485, 0.456, 0.406], vec![0.229, 0.224, 0.225]);
    let preprocess = Preprocess { mean, std, ..Preprocess::default() };
    let batch = &load(&test, LoaderOptions { batch: 4, rows: Some(Arc::new(vec![0, 1, 2, 3])), preprocess, ..LoaderOptions::default() })[0];
    let expected = &npz::read(&golden).unwrap()["in__input"];
    assert_eq!(expected.shape(), batch.inputs["input"].shape());
    let pairs = expected.as_slice::<f32>().unwrap().iter().zip(batch.inputs["input"].as_slice::<f32>().unwrap());
    assert!(pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) < 1e-6);
}

#[test]
fn every_golden_file_is_read() {
    let Some(folder) = shared("golden") else { return };
    for file in std::fs::read_dir(folder).unwrap() {
        let arrays = npz::read(&file.unwrap().path()).unwrap();
        assert!(arrays.keys().any(|name| name.starts_with("in__")) && arrays.keys().any(|name| name.starts_with("out__")));
    }
}

#[test]
fn mnist_idx() {
    let Some(path) = shared("mnist") else { return };
    let train = open(&path, &OpenOptions::split("train")).unwrap();
    let mut counts = [0; 10];
    train.labels().unwrap().into_iter().flatten().for_each(|label| counts[label as usize] += 1);
    assert_eq!(counts, [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]);
    let test = open(&path, &OpenOptions::split("test")).unwrap();
    assert_eq!((test.len(), test.read(0).unwrap().label), (10_000, Some(7)));
    let seven = image(test.as_ref(), 0);
    assert_eq!((seven.height, seven.width, seven.channels, seven.pixels[7 * 28 + 6]), (28, 28, 1, 84));
    let error = open(&path, &OpenOptions::split("validation")).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("no split 'validation': there are test, train"), "{error}");
    let error = open(&path, &OpenOptions::default()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("has the splits test, train"), "{error}");
}

#[test]
fn spoken_digits() {
    let Some(path) = shared("fsdd") else { return };
    let test = open(&path, &OpenOptions::split("test")).unwrap();
    assert_eq!((test.len(), test.class_names().len()), (300, 10));
    let preprocess = Preprocess { audio_length: Some(4000), audio_rate: Some(8000), ..Preprocess::default() };
    let batches = load(&test, LoaderOptions { batch: 100, preprocess, ..LoaderOptions::default() });
    assert_eq!(batches.len(), 3);
    assert_eq!(batches[0].inputs["input"].shape(), [100, 4000]);
    let loudest = batches[0].inputs["input"].as_slice::<f32>().unwrap().iter().fold(0f32, |m, v| m.max(v.abs()));
    assert!(loudest > 0.05 && loudest <= 1.0, "{loudest}");
    let wrong = Preprocess { audio_rate: Some(16_000), ..Preprocess::default() };
    let error = Loader::new(test, LoaderOptions { preprocess: wrong, ..LoaderOptions::default() }).unwrap().next().unwrap().unwrap_err();
    assert!(error.to_string().contains("row 0: 8000 samples a second"), "{error}");
}

#[test]
fn imagenet_sample() {
    let Some(path) = shared("imagenet_sample") else { return };
    let set = open(&path, &OpenOptions::split("val")).unwrap();
    assert_eq!((set.len(), set.class_names().len()), (500, 1000));
    let preprocess = Preprocess { size: Some(Size::ShorterSide(40)), crop: Some([32, 32]), ..Preprocess::default() };
    let batches = load(&set, LoaderOptions { batch: 250, preprocess, workers: 2, ..LoaderOptions::default() });
    assert_eq!(batches[1].inputs["input"].shape(), [250, 3, 32, 32]);
    let notes = check_classes(set.as_ref(), None, 1000, Purpose::Calibration).unwrap();
    assert!(notes[0].contains("no rows of class 1 (") && notes[0].contains("and 495 more"), "{notes:?}");
    let error = check_classes(set.as_ref(), None, 1000, Purpose::Training).unwrap_err();
    assert!(error.to_string().contains("cannot be learnt"), "{error}");
}

#[test]
fn embedded_digits() {
    let path = recipes().join("data/digits");
    let (train, test) = (open(&path, &OpenOptions::split("train")).unwrap(), open(&path, &OpenOptions::split("test")).unwrap());
    assert_eq!((train.len(), test.len()), (1438, 359));
    for set in [&train, &test] {
        assert!(check_classes(set.as_ref(), None, 10, Purpose::Training).unwrap().is_empty());
        assert_eq!(set.class_names()[9], "9");
    }
    let zero = image(train.as_ref(), 0);
    assert_eq!((zero.height, zero.width, zero.channels), (8, 8, 1));
    assert_eq!(zero.pixels[..8], [0, 0, 5, 13, 9, 1, 0, 0]);
}
