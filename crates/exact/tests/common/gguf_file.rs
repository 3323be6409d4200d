//! Writes GGUF files for tests, well-formed or not.

/// A file in the making: metadata in the order of the calls, then tensors.
#[derive(Clone, Default)]
pub struct GgufFile {
    entries: Vec<Vec<u8>>,
    tensors: Vec<(String, Vec<u64>, u32, Vec<u8>)>,
}

fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

impl GgufFile {
    /// Metadata of the given type number and bytes.
    pub fn raw(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.entries.push([string(key.as_bytes()).as_slice(), &kind.to_le_bytes(), value].concat());
        self
    }

    pub fn u32(self, key: &str, value: u32) -> Self {
        self.raw(key, 4, &value.to_le_bytes())
    }

    pub fn f32(self, key: &str, value: f32) -> Self {
        self.raw(key, 6, &value.to_le_bytes())
    }

    pub fn bool(self, key: &str, value: bool) -> Self {
        self.raw(key, 7, &[u8::from(value)])
    }

    pub fn str(self, key: &str, value: &str) -> Self {
        self.raw(key, 8, &string(value.as_bytes()))
    }

    /// An array of elements of the given type number and bytes.
    pub fn array(self, key: &str, kind: u32, elements: &[Vec<u8>]) -> Self {
        let head = [kind.to_le_bytes().as_slice(), &(elements.len() as u64).to_le_bytes()].concat();
        self.raw(key, 9, &[head, elements.concat()].concat())
    }

    pub fn strs<S: AsRef<str>>(self, key: &str, values: &[S]) -> Self {
        let elements: Vec<Vec<u8>> = values.iter().map(|value| string(value.as_ref().as_bytes())).collect();
        self.array(key, 8, &elements)
    }

    pub fn i32s(self, key: &str, values: &[i32]) -> Self {
        let elements: Vec<Vec<u8>> = values.iter().map(|value| value.to_le_bytes().to_vec()).collect();
        self.array(key, 5, &elements)
    }

    pub fn f32s(self, key: &str, values: &[f32]) -> Self {
        let elements: Vec<Vec<u8>> = values.iter().map(|value| value.to_le_bytes().to_vec()).collect();
        self.array(key, 6, &elements)
    }

    /// A tensor with its shape as the file has it, innermost dimension first.
    pub fn tensor(mut self, name: &str, dimensions: &[u64], kind: u32, data: &[u8]) -> Self {
        self.tensors.push((name.into(), dimensions.to_vec(), kind, data.to_vec()));
        self
    }

    /// A tensor of zeros in F32.
    pub fn zeros(self, name: &str, dimensions: &[u64]) -> Self {
        let elements: u64 = dimensions.iter().product();
        self.tensor(name, dimensions, 0, &vec![0; 4 * usize::try_from(elements).unwrap()])
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend((self.entries.len() as u64).to_le_bytes());
        file.extend(self.entries.concat());
        let mut data: Vec<u8> = Vec::new();
        for (name, dimensions, kind, bytes) in &self.tensors {
            file.extend(string(name.as_bytes()));
            file.extend(u32::try_from(dimensions.len()).unwrap().to_le_bytes());
            file.extend(dimensions.iter().flat_map(|length| length.to_le_bytes()));
            file.extend(kind.to_le_bytes());
            file.extend((data.len() as u64).to_le_bytes());
            data.extend(bytes);
            data.resize(data.len().next_multiple_of(32), 0);
        }
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend(data);
        file
    }
}
