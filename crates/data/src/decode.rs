//! From the bytes of a PNG, JPEG, WebP, BMP, TIFF or WAV file to pixels or sound.
use crate::{Audio, Content, Image};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};
use std::io::Cursor;
use std::panic::catch_unwind;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// Most pixels an image may claim to have (Pillow's limit against decompression bombs).
const MAX_PIXELS: usize = 178_956_970;

/// Decodes a file by its first bytes. The error is a sentence without the file's name. A decoder's panic on damaged bytes is
/// caught here: the decoder owns nothing that outlives the call.
pub(crate) fn decode(bytes: &[u8]) -> Result<Content, String> {
    catch_unwind(|| content(bytes))
        .unwrap_or_else(|_| Err("undecodable: the file is damaged in a way that its decoder does not expect".into()))
}

fn content(bytes: &[u8]) -> Result<Content, String> {
    if bytes.starts_with(b"\x89PNG") {
        png(bytes).map(Content::Image).map_err(|e| format!("undecodable PNG: {e}"))
    } else if bytes.starts_with(&[0xff, 0xd8]) {
        jpeg(bytes).map(Content::Image).map_err(|e| format!("undecodable JPEG: {e}"))
    } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        other(bytes, ImageFormat::WebP).map(Content::Image).map_err(|e| format!("undecodable WebP: {e}"))
    } else if bytes.starts_with(b"BM") {
        other(bytes, ImageFormat::Bmp).map(Content::Image).map_err(|e| format!("undecodable BMP: {e}"))
    } else if bytes.starts_with(b"II*\0") || bytes.starts_with(b"MM\0*") {
        other(bytes, ImageFormat::Tiff).map(Content::Image).map_err(|e| format!("undecodable TIFF: {e}"))
    } else if bytes.starts_with(b"RIFF") {
        wav(bytes).map(Content::Audio).map_err(|e| format!("undecodable WAV: {e}"))
    } else {
        let start = &bytes[..bytes.len().min(8)];
        Err(format!("neither PNG nor JPEG nor WebP nor BMP nor TIFF nor WAV: {} bytes that begin with {start:02x?}", bytes.len()))
    }
}

pub(crate) fn check_size(width: usize, height: usize) -> Result<(), String> {
    if width == 0 || height == 0 || width.saturating_mul(height) > MAX_PIXELS {
        return Err(format!("{width} x {height} pixels: 1 to {MAX_PIXELS} can be read"));
    }
    Ok(())
}

/// Palettes are expanded, 16 bits reduced to 8, and alpha dropped (as Pillow's `convert("RGB")` does).
fn png(bytes: &[u8]) -> Result<Image, String> {
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(|e| e.to_string())?;
    let (width, height) = (reader.info().width as usize, reader.info().height as usize);
    check_size(width, height)?;
    let stored = reader.output_color_type().0.samples();
    let mut pixels = vec![0; width * height * stored];
    reader.next_frame(&mut pixels).map_err(|e| e.to_string())?;
    let channels = if stored > 2 { 3 } else { 1 };
    if stored != channels {
        pixels = pixels.chunks_exact(stored).flat_map(|pixel| &pixel[..channels]).copied().collect();
    }
    Ok(Image { height, width, channels, pixels })
}

fn jpeg(bytes: &[u8]) -> Result<Image, String> {
    let options = DecoderOptions::default().set_strict_mode(true);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|e| e.to_string())?;
    let (width, height) = decoder.dimensions().ok_or("no frame")?;
    check_size(width, height)?;
    let grey = decoder.input_colorspace() == Some(ColorSpace::Luma);
    let (out, channels) = if grey { (ColorSpace::Luma, 1) } else { (ColorSpace::RGB, 3) };
    decoder.set_options(options.jpeg_set_out_colorspace(out));
    let pixels = decoder.decode().map_err(|e| e.to_string())?;
    if pixels.len() != width * height * channels {
        return Err(format!("{} values for {width} x {height} pixels of {channels} channels", pixels.len()));
    }
    Ok(Image { height, width, channels, pixels })
}

/// The first picture of a file, 8 bits a channel, without alpha.
fn other(bytes: &[u8], format: ImageFormat) -> Result<Image, String> {
    let decoder = || ImageReader::with_format(Cursor::new(bytes), format).into_decoder().map_err(|e| e.to_string());
    let (width, height) = decoder()?.dimensions();
    let (width, height) = (width as usize, height as usize);
    check_size(width, height)?;
    let decoded = DynamicImage::from_decoder(decoder()?).map_err(|e| e.to_string())?;
    let (pixels, channels) = match decoded.color().has_color() {
        true => (decoded.into_rgb8().into_raw(), 3),
        false => (decoded.into_luma8().into_raw(), 1),
    };
    Ok(Image { height, width, channels, pixels })
}

fn wav(bytes: &[u8]) -> Result<Audio, String> {
    let reader = hound::WavReader::new(Cursor::new(bytes)).map_err(|e| e.to_string())?;
    let spec = reader.spec();
    let interleaved: Vec<f32> = match spec.sample_format {
        hound::SampleFormat::Float => reader.into_samples::<f32>().collect::<Result<_, _>>(),
        hound::SampleFormat::Int => {
            let full_scale = 2f32.powi(i32::from(spec.bits_per_sample) - 1);
            reader.into_samples::<i32>().map(|sample| Ok(sample? as f32 / full_scale)).collect()
        }
    }
    .map_err(|e| e.to_string())?;
    let channels = usize::from(spec.channels).max(1);
    let samples = match channels {
        1 => interleaved,
        _ => interleaved.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() / channels as f32).collect(),
    };
    Ok(Audio { samples, rate: spec.sample_rate })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A palette of four bytes, one colour and a third of another: the decoder panics on it.
    const ODD_PALETTE: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x09\0\0\0\x07\x04\x03\0\0\x01\x5f\xb2\x4a\xc5\0\0\0\x04PLTE\0\0\0\0\xb4\xa3\xae\x7a\0\0\0\x0cIDAT\
\x78\x9c\x63\x60\xa0\x3e\0\0\0\x54\0\x01\x93\xe7\xc3\x38\0\0\0\0IEND\xaeB\x60\x82";

    #[test]
    fn a_decoder_that_panics_is_an_error() {
        let e = decode(ODD_PALETTE).unwrap_err();
        assert!(e.starts_with("undecodable"), "{e}");
    }
}
