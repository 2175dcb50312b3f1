//! Recognises files that are not ONNX models, and names their format.

/// The format of bytes that are no ONNX model, with advice; `None` if they may be an ONNX model.
pub(crate) fn named(bytes: &[u8]) -> Option<&'static str> {
    let at = |from: usize, magic: &[u8]| bytes.get(from..from + magic.len()) == Some(magic);
    let text = |start: &str| bytes.get(..start.len()).is_some_and(|b| b.eq_ignore_ascii_case(start.as_bytes()));
    Some(match bytes {
        [] => "the file is empty",
        _ if at(0, b"PK\x03\x04") => {
            "this is a zip archive, not an ONNX model: PyTorch's .pt and .pth, Keras' .keras and NumPy's .npz files are. A PyTorch \
             network becomes ONNX by torch.onnx.export(model, example, \"model.onnx\")"
        }
        [0x80, 2..=5, ..] => {
            "this is a Python pickle (an older PyTorch .pt or .pth file), not an ONNX model: load it in PyTorch and write \
             torch.onnx.export(model, example, \"model.onnx\")"
        }
        _ if at(4, b"TFL3") => "this is a TensorFlow Lite model, not ONNX: convert it with tflite2onnx or tf2onnx (--tflite)",
        _ if at(4, b"ORTM") => "this is ONNX Runtime's own format (.ort), not ONNX: use the .onnx file that it was made from",
        _ if at(0, b"\x89HDF") => "this is an HDF5 file (Keras' .h5), not ONNX: convert it with tf2onnx (--keras)",
        _ if at(0, b"GGUF") => "this is a GGUF model (llama.cpp), not ONNX: export the network it was made from",
        [0x1f, 0x8b, ..] => "this is gzip, not an ONNX model: unpack it first",
        _ if at(8, b"{\"") => "this is a safetensors file: weights without a network; export the network to ONNX",
        _ if text("version https://git-lfs") => "this is a Git LFS pointer, not the model itself: fetch it with git lfs pull",
        _ if text("<!doctype") || text("<html") => "this is a web page, not an ONNX model: the download gave something else",
        _ if text("<?xml") => "this is XML (OpenVINO's .xml?), not an ONNX model",
        // A model begins with tags and lengths, which do not occur in text.
        _ if bytes.len() >= 16 && bytes.iter().take(64).all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace()) => {
            "this is text, not an ONNX model; a recipe is run with: espalier run RECIPE"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn other_formats_are_told_by_their_first_bytes() {
        for (bytes, said) in [
            (&b""[..], "empty"),
            (b"PK\x03\x04rest", "PyTorch"),
            (b"\x80\x02}q", "pickle"),
            (b"\x1c\0\0\0TFL3", "TensorFlow Lite"),
            (b"\x89HDF\r\n", "Keras"),
            (b"\x40\0\0\0\0\0\0\0{\"a\":", "safetensors"),
            (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
            (b"<!DOCTYPE html>", "web page"),
            (b"name = \"digits\"\nseed = 1\n", "espalier run"),
        ] {
            assert!(named(bytes).is_some_and(|s| s.contains(said)), "{said}");
        }
        // The first bytes of a model: its IR version, then its producer or graph.
        assert_eq!((named(&[8, 8, 0x12, 7]), named(&[0x3a, 4]), named(b"\x08")), (None, None, None));
    }
}
