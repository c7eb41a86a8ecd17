"""Reading slides: levels, scale, tissue and grid."""
