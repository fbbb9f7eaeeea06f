{
  description = "nodeprep: from bare NVMe disks on Talos to proven, backed-up Kubernetes storage";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" "aarch64-darwin" ];
      each = f: nixpkgs.lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});
    in
    {
      packages = each (pkgs: {
        default = pkgs.rustPlatform.buildRustPackage {
          pname = "nodeprep";
          version = (builtins.fromTOML (builtins.readFile ./Cargo.toml)).package.version;
          src = self;
          cargoLock.lockFile = ./Cargo.lock;
          nativeBuildInputs = [ pkgs.installShellFiles ];
          postInstall = ''
            for shell in bash fish zsh; do
              $out/bin/nodeprep completions $shell > nodeprep.$shell
            done
            installShellCompletion nodeprep.{bash,fish,zsh}
          '';
          meta.mainProgram = "nodeprep";
        };
      });

      devShells = each (pkgs: {
        default = pkgs.mkShell {
          inputsFrom = [ self.packages.${pkgs.system}.default ];
          packages = [ pkgs.cargo-deny pkgs.clippy pkgs.just pkgs.kubectl pkgs.rustfmt pkgs.sops pkgs.talosctl ];
        };
      });
    };
}
