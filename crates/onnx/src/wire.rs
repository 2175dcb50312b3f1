//! Protobuf's wire format: a bounds-checked reader that lends slices, and a writer. A length that the input claims allocates
//! nothing.

/// A field of a message: its number, its value, and all its bytes including the tag, for carrying it through untouched.
pub(crate) struct Field<'a> {
    pub(crate) number: u32,
    pub(crate) value: Wire<'a>,
    pub(crate) raw: &'a [u8],
}

/// A value on the wire.
#[derive(Clone, Copy)]
pub(crate) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// Reads the fields of one message in order.
pub(crate) struct Fields<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Fields { all: message, at: 0 }
    }

    /// The next field, `None` at the end, an error message for malformed bytes.
    pub(crate) fn next_field(&mut self) -> Result<Option<Field<'a>>, String> {
        if self.at == self.all.len() {
            return Ok(None);
        }
        let start = self.at;
        let key = self.varint()?;
        let number =
            u32::try_from(key >> 3).ok().filter(|n| *n > 0).ok_or_else(|| format!("byte {start}: field number {} is not one", key >> 3))?;
        let value = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = self.varint()?;
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.array()?)),
            other => return Err(format!("byte {start}: wire type {other} is not used by ONNX")),
        };
        Ok(Some(Field { number, value, raw: &self.all[start..self.at] }))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let left = self.all.len() - self.at;
        if length > left {
            return Err(format!("byte {}: {length} bytes are announced, {left} are left", self.at));
        }
        let slice = &self.all[self.at..self.at + length];
        self.at += length;
        Ok(slice)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn varint(&mut self) -> Result<u64, String> {
        let start = self.at;
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first().unwrap_or(&0);
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(format!("byte {start}: a number has more than 10 bytes"))
    }
}

impl<'a> Wire<'a> {
    pub(crate) fn bytes(self) -> Result<&'a [u8], String> {
        if let Wire::Bytes(b) = self { Ok(b) } else { Err("has another wire type than the schema says".into()) }
    }

    pub(crate) fn int(self) -> Result<i64, String> {
        if let Wire::Varint(v) = self { Ok(v as i64) } else { Err("has another wire type than the schema says".into()) }
    }

    pub(crate) fn float(self) -> Result<f32, String> {
        if let Wire::Fixed32(v) = self { Ok(f32::from_bits(v)) } else { Err("has another wire type than the schema says".into()) }
    }

    pub(crate) fn string(self) -> Result<String, String> {
        let bytes = self.bytes()?;
        String::from_utf8(bytes.to_vec()).map_err(|_| format!("is not UTF-8: {:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(40)])))
    }

    /// A repeated integer, packed or not.
    pub(crate) fn ints(self, out: &mut Vec<i64>) -> Result<(), String> {
        match self {
            Wire::Bytes(packed) => {
                let mut fields = Fields::new(packed);
                while fields.at < packed.len() {
                    out.push(fields.varint()? as i64);
                }
                Ok(())
            }
            single => {
                out.push(single.int()?);
                Ok(())
            }
        }
    }

    /// A repeated float, packed or not.
    pub(crate) fn floats(self, out: &mut Vec<f32>) -> Result<(), String> {
        match self {
            Wire::Bytes(packed) if packed.len() % 4 == 0 => {
                out.extend(packed.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
                Ok(())
            }
            Wire::Fixed32(v) => {
                out.push(f32::from_bits(v));
                Ok(())
            }
            _ => Err("is not a list of floats".into()),
        }
    }

    /// A repeated double, packed or not.
    pub(crate) fn doubles(self, out: &mut Vec<f64>) -> Result<(), String> {
        match self {
            Wire::Bytes(packed) if packed.len() % 8 == 0 => {
                out.extend(packed.chunks_exact(8).map(|b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])));
                Ok(())
            }
            Wire::Fixed64(v) => {
                out.push(f64::from_bits(v));
                Ok(())
            }
            _ => Err("is not a list of doubles".into()),
        }
    }
}

/// Writes the fields of one message.
#[derive(Default)]
pub(crate) struct Message(pub(crate) Vec<u8>);

impl Message {
    fn varint(&mut self, mut v: u64) {
        while v >= 0x80 {
            self.0.push(v as u8 | 0x80);
            v >>= 7;
        }
        self.0.push(v as u8);
    }

    fn tag(&mut self, number: u32, wire: u32) {
        self.varint(u64::from(number << 3 | wire));
    }

    pub(crate) fn int(&mut self, number: u32, v: i64) {
        self.tag(number, 0);
        self.varint(v as u64);
    }

    pub(crate) fn int_nonzero(&mut self, number: u32, v: i64) {
        if v != 0 {
            self.int(number, v);
        }
    }

    pub(crate) fn float(&mut self, number: u32, v: f32) {
        self.tag(number, 5);
        self.0.extend(v.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, number: u32, v: &[u8]) {
        self.tag(number, 2);
        self.varint(v.len() as u64);
        self.0.extend(v);
    }

    pub(crate) fn text(&mut self, number: u32, v: &str) {
        if !v.is_empty() {
            self.bytes(number, v.as_bytes());
        }
    }

    pub(crate) fn message(&mut self, number: u32, v: Message) {
        self.bytes(number, &v.0);
    }

    pub(crate) fn packed_ints(&mut self, number: u32, v: &[i64]) {
        if !v.is_empty() {
            let mut inner = Message::default();
            v.iter().for_each(|i| inner.varint(*i as u64));
            self.message(number, inner);
        }
    }

    pub(crate) fn raw(&mut self, fields: &[u8]) {
        self.0.extend(fields);
    }
}
