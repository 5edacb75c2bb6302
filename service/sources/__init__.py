"""Where imports come from: folders, manifests, archives and object stores."""
