//! Bytes as clients could send them.

/// A TLS hello.
#[derive(Clone, Debug)]
pub struct Hello {
    pub version: u16,
    pub ciphers: Vec<u16>,
    pub compression: Vec<u8>,
    pub extensions: Option<Vec<u8>>,
}

impl Default for Hello {
    fn default() -> Self {
        Self { version: 0x0303, ciphers: vec![0xc02f, 0xc030], compression: vec![0], extensions: Some(Vec::new()) }
    }
}

impl Hello {
    pub fn with(mut self, kind: u16, data: &[u8]) -> Self {
        let extensions = self.extensions.get_or_insert_default();
        extensions.extend(kind.to_be_bytes());
        extensions.extend(vector(data));
        self
    }

    pub fn with_name(self, name: &str) -> Self {
        self.with(0, &vector(&[&[0], &vector(name.as_bytes())[..]].concat()))
    }

    /// The handshake message, its header included.
    pub fn message(&self) -> Vec<u8> {
        let ciphers: Vec<u8> = self.ciphers.iter().flat_map(|cipher| cipher.to_be_bytes()).collect();
        let mut body = self.version.to_be_bytes().to_vec();
        body.extend([7; 32]);
        body.push(0);
        body.extend(vector(&ciphers));
        body.push(u8::try_from(self.compression.len()).unwrap());
        body.extend(&self.compression);
        if let Some(extensions) = &self.extensions {
            body.extend(vector(extensions));
        }
        let [_, length @ ..] = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[1][..], &length, &body].concat()
    }
}

/// A handshake message in records of these lengths, over and over.
pub fn in_records(mut message: &[u8], lengths: &[usize]) -> Vec<u8> {
    let (mut records, mut lengths) = (Vec::new(), lengths.iter().cycle());
    while !message.is_empty() {
        let (part, rest) = message.split_at(message.len().min(*lengths.next().unwrap()));
        records.extend([22, 3, 1]);
        records.extend(vector(part));
        message = rest;
    }
    records
}

/// What a client begins with that knows of HTTP/2 beforehand: no settings.
pub fn http2() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(4, 0, 0, b"")[..]].concat()
}

/// A frame of HTTP/2.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header that is not compressed: HPACK's literals without indexing.
pub fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let string = |text: &str| {
        let length = text.len();
        let mut bytes = if length < 127 {
            vec![length as u8]
        } else {
            vec![127, (length - 127) as u8 & 127 | 128, ((length - 127) >> 7) as u8]
        };
        bytes.extend(text.as_bytes());
        bytes
    };
    fields.iter().flat_map(|(name, value)| [&[0][..], &string(name), &string(value)].concat()).collect()
}

fn vector(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}
