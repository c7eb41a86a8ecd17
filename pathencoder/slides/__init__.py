"""Reading slides: formats, levels, scale, tissue, grid."""
