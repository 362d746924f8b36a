"""When does a model change its mind? Features, logistic regression and examples (section 5)."""
