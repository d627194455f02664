//! From folders and archives of images to datasets.

mod cifar;
mod image_folder;
mod place;
mod resume;
mod webdataset;
