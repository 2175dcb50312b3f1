//! Data as users have them: many image formats, nested folders, missing classes, inputs with another sample axis, whole runs in
//! files, and files that announce more than they should.
use espalier_data::{
    ArraysDataset, Augment, Content, Dataset, Layout, Loader, LoaderOptions, OpenOptions, Place, Preprocess, check_heeded, check_positions,
    npz, open, relabel,
};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use tensor::{DType, Tensor};

const WEBP: &str = "\
    5249464636000000574542505650384c290000002f014000001f20242074e7fc3fe386583099ff1955580212221f6cf2ff91f90f7c705570038688fe\
    8700";
const BMP: &str = "\
    424d460000000000000036000000280000000200000002000000010018000000000010000000c40e0000c40e00000000000000000000ff00005a5a5a\
    0000140ac800ff000000";
const TIFF: &str = "\
    49492a00080000000a000001040001000000020000000101040001000000020000000201030003000000860000000301030001000000010000000601\
    0300010000000200000011010400010000008c00000015010300010000000300000016010400010000000200000017010400010000000c0000001c01\
    0300010000000100000000000000080008000800c80a1400ff000000ff5a5a5a";
const GREY_TIFF: &str = "\
    49492a000800000009000001040001000000020000000101040001000000020000000201030001000000080000000301030001000000010000000601\
    0300010000000100000011010400010000007a0000001601040001000000020000001701040001000000040000001c01030001000000010000000000\
    00000064c8ff";

const GREY_JPEG: &str = "\
    ffd8ffe000104a46494600010100000100010000ffdb0043000101010101010101010101010101010101010101010101010101010101010101010101\
    0101010101010101010101010101010101010101010101010101010101ffc0000b080008000801011100ffc400140001000000000000000000000000\
    0000000affc40014100100000000000000000000000000000000ffda0008010100003f00480fffd9";

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn put(folder: &Path, file: &str, content: &[u8]) {
    let path = folder.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| s.to_string()).collect()
}

/// The files are Pillow's: red, green, blue and grey, or four shades.
#[test]
fn webp_bmp_and_tiff_are_read() {
    let folder = tempfile::tempdir().unwrap();
    for (file, hex) in [("c/1.webp", WEBP), ("c/2.bmp", BMP), ("c/3.tif", TIFF), ("c/4.TIFF", TIFF)] {
        put(folder.path(), file, &bytes(hex));
    }
    let set = open(folder.path(), &OpenOptions::default()).unwrap();
    assert_eq!((set.len(), set.notes()), (4, vec![]));
    let raw = Preprocess { scale: 1.0, layout: Layout::Nhwc, ..Preprocess::default() };
    let load =
        |set: Arc<dyn Dataset>| Loader::new(set, LoaderOptions { preprocess: raw.clone(), ..LoaderOptions::default() }).unwrap().next();
    let batch = load(set).unwrap().unwrap();
    let pixels = [200f32, 10.0, 20.0, 0.0, 255.0, 0.0, 0.0, 0.0, 255.0, 90.0, 90.0, 90.0];
    assert_eq!(batch.inputs["input"].as_slice::<f32>().unwrap(), pixels.repeat(4));
    let grey = tempfile::tempdir().unwrap();
    put(grey.path(), "c/a.tif", &bytes(GREY_TIFF));
    let batch = load(open(grey.path(), &OpenOptions::default()).unwrap()).unwrap().unwrap();
    assert_eq!(batch.inputs["input"].to_f32_vec().unwrap(), [0.0, 100.0, 200.0, 255.0]);
    for hex in [WEBP, BMP, TIFF] {
        let whole = bytes(hex);
        for length in 13..whole.len() {
            put(grey.path(), "c/a.tif", &whole[..length]);
            // An error or an image: never a panic.
            let _ = load(open(grey.path(), &OpenOptions::default()).unwrap()).unwrap();
        }
    }
}

/// Pillow's, of one shade.
#[test]
fn jpegs_are_read_whatever_their_ending_is() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["c/1.jfif", "c/2.JFIF", "c/3.jpe", "c/4.jpeg", "c/5.jpg"] {
        put(folder.path(), file, &bytes(GREY_JPEG));
    }
    let set = open(folder.path(), &OpenOptions::default()).unwrap();
    assert_eq!((set.len(), set.notes()), (5, vec![]));
    let options = LoaderOptions { preprocess: Preprocess { scale: 1.0, ..Preprocess::default() }, ..LoaderOptions::default() };
    let batch = Loader::new(set, options).unwrap().next().unwrap().unwrap();
    assert_eq!(batch.inputs["input"].shape(), [5, 1, 8, 8]);
    assert_eq!(batch.inputs["input"].to_f32_vec().unwrap(), [200.0; 320]);
}

#[test]
fn what_is_passed_over_is_counted_and_classes_may_have_folders() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["cat/tabby/1.bmp", "cat/2.bmp", "dog/poodle/small/3.bmp"] {
        put(folder.path(), file, &bytes(BMP));
    }
    for file in ["cat/a.gif", "cat/tabby/b.GIF", "dog/c.avif", "notes.txt", "dog/Thumbs.db", "dog/.hidden.png"] {
        put(folder.path(), file, b"x");
    }
    // Scoring asks for `test`; nothing here is a split.
    let set = open(folder.path(), &OpenOptions::split("test")).unwrap();
    assert_eq!((set.class_names(), set.labels().unwrap()), (&names(&["cat", "dog"])[..], vec![Some(0), Some(0), Some(1)]));
    let notes = set.notes();
    assert!(notes.len() == 1 && notes[0].contains("4 files are skipped (1 .avif, 2 .gif, 1 .txt)"), "{notes:?}");
}

fn classes(folder: &Path, list: &[&str]) -> Arc<dyn Dataset> {
    list.iter().for_each(|class| put(folder, &format!("{class}/a.bmp"), &bytes(BMP)));
    open(folder, &OpenOptions::default()).unwrap()
}

#[test]
fn labels_go_by_the_classes_names() {
    let (train, test) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let train = classes(train.path(), &["0", "180", "270", "90"]);
    let test = classes(test.path(), &["0", "270", "90"]);
    assert_eq!(test.labels().unwrap(), [0, 1, 2].map(Some));
    let error = check_positions(test.as_ref(), 4).unwrap_err().to_string();
    assert!(error.contains("its 3 classes are 0, 270, 90, the network has 4"), "{error}");
    check_positions(train.as_ref(), 4).unwrap();
    let same = relabel(test.clone(), train.class_names()).unwrap();
    assert_eq!((same.labels().unwrap(), same.class_names()), (vec![Some(0), Some(2), Some(3)], train.class_names()));
    assert_eq!(same.read(2).unwrap().label, Some(3));
    let error = relabel(test, &names(&["0", "90", "45"])).err().unwrap().to_string();
    assert!(error.contains("class '270' is not among the classes that the network knows, 0, 90, 45"), "{error}");
    // Numeric labels are matched by name if all names are known, and stay if the names differ.
    let x = ("x".to_string(), Tensor::zeros(DType::F32, &[2, 1]).unwrap());
    let arrays = |own: &[&str]| {
        let own = ("class_names".to_string(), Tensor::vector(names(own)));
        let y = ("y".to_string(), Tensor::vector(vec![0i64, 1]));
        Arc::new(ArraysDataset::new(Path::new("a.npz"), BTreeMap::from([x.clone(), y, own])).unwrap()) as Arc<dyn Dataset>
    };
    let labels = |own: &[&str], to: &[&str]| relabel(arrays(own), &names(to)).unwrap().labels().unwrap();
    assert_eq!(labels(&["b", "a"], &["a", "b", "c"]), [1, 0].map(Some));
    assert_eq!(labels(&["Katze", "Hund"], &["cat", "dog"]), [0, 1].map(Some));
}

#[test]
fn samples_lie_along_the_axis_that_the_input_has_for_them() {
    let numbers = |shape: &[usize]| Tensor::new((0..shape.iter().product::<usize>()).map(|v| v as f32).collect(), shape.to_vec()).unwrap();
    let arrays = BTreeMap::from([
        ("x".to_string(), numbers(&[3, 2])),
        ("state".to_string(), numbers(&[1, 3, 2])),
        ("rate".to_string(), Tensor::scalar(8000i64)),
    ]);
    let set = ArraysDataset::new(Path::new("a.npz"), arrays).unwrap();
    let error = set.read(0).unwrap_err().to_string();
    assert!(error.contains("array 'state' has 1 rows, array 'x' 3") || error.contains("array 'rate' has 0 rows"), "{error}");
    let place = |rank, axis| Place { rank: Some(rank), axis, ..Place::default() };
    let mut places = BTreeMap::from([("x".to_string(), place(2, Some(0))), ("rate".to_string(), place(0, None))]);
    assert!(set.arranged(&places).is_err());
    places.insert("state".into(), place(3, Some(1)));
    let arranged = set.arranged(&places).unwrap().unwrap();
    assert_eq!(arranged.len(), 3);
    let Content::Arrays(row) = arranged.read(1).unwrap().content else { panic!("no arrays") };
    assert_eq!((row["x"].to_f32_vec().unwrap(), row["rate"].shape()), (vec![2.0, 3.0], &[][..]));
    assert_eq!((row["state"].to_f32_vec().unwrap(), row["state"].shape()), (vec![2.0, 3.0], &[1, 2][..]));
    // An axis more than the input has is the sample axis.
    places.insert("state".into(), place(2, Some(1)));
    assert!(set.arranged(&places).is_err(), "1 row along the first axis");
    places.insert("state".into(), Place { held: true, ..place(3, Some(1)) });
    let Content::Arrays(row) = set.arranged(&places).unwrap().unwrap().read(1).unwrap().content else { panic!("no arrays") };
    assert_eq!(row["state"].shape(), [1, 3, 2]);
}

#[test]
fn files_of_whole_runs_are_never_stacked() {
    let folder = tempfile::tempdir().unwrap();
    for (i, length) in [4usize, 6, 5].into_iter().enumerate() {
        let x = Tensor::full(i as f32, [1, length]).unwrap();
        let arrays = BTreeMap::from([("x".to_string(), x), ("label".to_string(), Tensor::scalar(i as i64))]);
        npz::write(&folder.path().join(format!("{i:03}.npz")), &arrays).unwrap();
    }
    let set = open(folder.path(), &OpenOptions::split("train")).unwrap();
    assert_eq!((set.len(), set.is_ready(), set.labels().unwrap()), (3, true, vec![Some(0), Some(1), Some(2)]));
    for workers in [0, 2] {
        let options = LoaderOptions { batch: 2, workers, ..LoaderOptions::default() };
        let batches: Vec<_> = Loader::new(set.clone(), options).unwrap().map(|b| b.unwrap()).collect();
        let seen: Vec<_> = batches.iter().map(|b| (b.rows.clone(), b.inputs["x"].shape()[1], b.ready, b.continues)).collect();
        assert_eq!(seen, [(vec![0], 4, true, true), (vec![1], 6, true, false), (vec![2], 5, true, false)]);
        assert_eq!(batches[1].targets.labels.as_ref().unwrap().as_slice::<i64>().unwrap(), [1]);
    }
    // Files named after splits stay one data set each.
    fs::rename(folder.path().join("000.npz"), folder.path().join("digits-train.npz")).unwrap();
    assert!(open(folder.path(), &OpenOptions::split("test")).is_err());
}

#[test]
fn rows_of_different_shapes_come_one_shape_at_a_time_where_that_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "c/1.bmp", &bytes(BMP));
    put(folder.path(), "c/2.bmp", &bytes(BMP));
    put(folder.path(), "c/3.tif", &bytes(GREY_TIFF));
    let set = open(folder.path(), &OpenOptions::default()).unwrap();
    let run =
        |ragged| Loader::new(set.clone(), LoaderOptions { ragged, ..LoaderOptions::default() }).unwrap().collect::<Result<Vec<_>, _>>();
    assert!(run(false).unwrap_err().to_string().contains("that of the rows before it"));
    let batches = run(true).unwrap();
    let seen: Vec<_> = batches.iter().map(|b| (b.rows.clone(), b.inputs["input"].shape()[1], b.continues)).collect();
    assert_eq!(seen, [(vec![0, 1], 3, true), (vec![2], 1, false)]);
}

#[test]
fn arrays_heed_preprocessing_where_that_is_asked_for_and_refuse_it_otherwise() {
    let x = Tensor::new((0..8).map(|v| v as f32).collect(), [1, 2, 2, 2]).unwrap();
    let arrays = || Arc::new(ArraysDataset::new(Path::new("a.npz"), BTreeMap::from([("x".to_string(), x.clone())])).unwrap());
    let given = Preprocess { scale: 0.5, mean: vec![1.0, 2.0], std: vec![1.0, 4.0], ..Preprocess::default() };
    let error = check_heeded(arrays().as_ref(), Some(&given), &Augment::default()).unwrap_err().to_string();
    assert!(error.contains("a.npz: preprocessing is given, and the data are arrays, not images: with arrays = true"), "{error}");
    let flip = Augment { flip: true, crop_padding: 0 };
    assert!(check_heeded(arrays().as_ref(), None, &flip).unwrap_err().to_string().contains("augmentation is asked for"));
    check_heeded(arrays().as_ref(), None, &Augment::default()).unwrap();
    let applied = Preprocess { arrays: true, ..given };
    check_heeded(arrays().as_ref(), Some(&applied), &flip).unwrap();
    let load = |preprocess: &Preprocess| {
        let options = LoaderOptions { preprocess: preprocess.clone(), ..LoaderOptions::default() };
        let batch = Loader::new(arrays(), options).unwrap().next().unwrap();
        batch.map(|b| b.inputs["input"].to_f32_vec().unwrap()).map_err(|e| e.to_string())
    };
    assert_eq!(load(&applied).unwrap(), [-1.0, -0.5, 0.0, 0.5, 0.0, 0.125, 0.25, 0.375]);
    assert_eq!(load(&Preprocess::default()).unwrap(), (0..8).map(|v| v as f32).collect::<Vec<_>>());
    assert!(load(&Preprocess { crop: Some([1, 1]), ..applied }).unwrap_err().contains("preprocess.crop cannot be applied to an array"));
}

/// Mirrored or not, an array gives the same input as an image with its values.
#[test]
fn arrays_are_augmented_as_images_are() {
    let pixels: Vec<u8> = (0..4 * 3 * 5).collect();
    let bytes = Tensor::new(pixels.clone(), [4, 3, 5]).unwrap();
    let floats = Tensor::new(pixels.iter().map(|p| f32::from(*p)).collect(), [4, 1, 3, 5]).unwrap();
    let load = |t: Tensor, arrays| {
        let set = ArraysDataset::new(Path::new("a.npz"), BTreeMap::from([("x".to_string(), t)])).unwrap();
        let preprocess = Preprocess { mean: vec![0.1], arrays, ..Preprocess::default() };
        let options = LoaderOptions { preprocess, augment: Augment { flip: true, crop_padding: 2 }, ..LoaderOptions::default() };
        let batch = Loader::new(Arc::new(set), options).unwrap().next().unwrap().unwrap();
        batch.inputs["input"].to_f32_vec().unwrap()
    };
    assert_eq!(load(bytes, false), load(floats, true));
}

#[test]
fn a_gzipped_file_unpacks_to_what_its_header_announces_at_most() {
    let gzip = |parts: &[&[u8]]| {
        let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        parts.iter().for_each(|part| encoder.write_all(part).unwrap());
        encoder.finish().unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let header = |n: u32, side: u32| [&[0, 0, 8, 3][..], &n.to_be_bytes(), &side.to_be_bytes(), &side.to_be_bytes()].concat();
    let (images, labels) = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz");
    put(folder.path(), labels, &gzip(&[&[0, 0, 8, 1, 0, 0, 0, 1, 0]]));
    let fails = |options: &OpenOptions| open(folder.path(), options).err().unwrap().to_string();
    // One image of one pixel, and 64 MB behind it.
    put(folder.path(), images, &gzip(&[&header(1, 1), &vec![0; 64 << 20]]));
    assert!(fails(&OpenOptions::default()).contains("unpacks to more than the 17 bytes that its header announces"));
    put(folder.path(), images, &gzip(&[&header(1, 2000), &vec![0; 4_000_000]]));
    open(folder.path(), &OpenOptions::default()).unwrap();
    let error = fails(&OpenOptions { cache_bytes: 1 << 20, ..OpenOptions::default() });
    assert!(error.contains("unpacks to 4000016 bytes, and at most 1048576 may be kept in memory (cache): gunzip it"), "{error}");
    put(folder.path(), images, &gzip(&[&header(1, 40_000)]));
    assert!(fails(&OpenOptions::default()).contains("its images are of 40000 x 40000 pixels"));
    let cifar = tempfile::tempdir().unwrap();
    put(cifar.path(), "test_batch.bin.gz", &gzip(&[&vec![0; 3073 * 3]]));
    assert_eq!(open(cifar.path(), &OpenOptions::split("test")).unwrap().len(), 3);
    let error = open(cifar.path(), &OpenOptions { cache_bytes: 9000, ..OpenOptions::split("test") }).err().unwrap().to_string();
    assert!(error.contains("unpacks to more than 9000 bytes"), "{error}");
}
