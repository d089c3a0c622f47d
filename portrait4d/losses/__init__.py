"""L5: tensors in, scalars out; the terms that trainings are made of, without schedules and without networks."""
