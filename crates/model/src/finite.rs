//! Finds a tensor of the model with an element that is not finite.

use crate::{Backend, Model, ModelError, parts::host};

impl<D: Backend> Model<D> {
    /// Name, as in files, of the first tensor with an element that is infinite or not a number. It
    /// looks at the model's parameters from the embedding to the head, then at weights in NF4, then
    /// at the adapter. Reads everything from the device.
    pub fn first_not_finite(&self) -> Result<Option<String>, ModelError> {
        let finite = |elements: &[f32]| elements.iter().all(|x| x.is_finite());
        for parameter in self.weights.base() {
            if !finite(&parameter.value.to_f32_vec()?) {
                return Ok(Some(parameter.name.clone()));
            }
        }
        let host = host(&self.device)?;
        for weight in self.weights.nf4() {
            if !finite(&weight.to_f32_vec(&host)?) {
                return Ok(Some(weight.name.clone()));
            }
        }
        for parameter in self.weights.adapter() {
            if !finite(&parameter.value.to_f32_vec()?) {
                return Ok(Some(parameter.name.clone()));
            }
        }
        Ok(None)
    }
}
